/// A ZeroMQ endpoint as topology files spell it: `tcp://HOST:PORT` or `ipc://PATH`.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    /// The endpoint as libzmq takes it.
    public let description: String

    /// Where it listens, in a form in which two spellings of one place compare equal.
    let place: Place

    enum Place: Hashable {
        case network(Address)
        case path(String)

        /// Whether one host cannot listen at both.
        func clashes(with other: Place) -> Bool {
            if case .network(let mine) = self, case .network(let theirs) = other, mine.port == theirs.port {
                return mine.host == theirs.host || mine.isEveryInterface || theirs.isEveryInterface
            }
            return self == other
        }
    }

    static let expected = "tcp://HOST:PORT or ipc://PATH"

    /// The longest path a Unix domain socket takes (`sun_path` less its final zero).
    private static let longestPath = 107

    /// - Parameter text: what stands in the file.
    /// - Returns: nil when `text` is no endpoint.
    init?(_ text: String) {
        if text.hasPrefix("tcp://"), let address = Address(String(text.dropFirst("tcp://".count))) {
            place = .network(address)
        } else if text.hasPrefix("ipc://") {
            let path = String(text.dropFirst("ipc://".count))
            guard (1...Self.longestPath).contains(path.utf8.count), path != "*" else { return nil }
            guard !path.contains(where: isUnprintable) else { return nil }
            place = .path(path)
        } else {
            return nil
        }
        description = text
    }

    /// The host of a `tcp://` endpoint, as it is spelled; nil for `ipc://`, which is always this host.
    public var host: String? {
        if case .network(let address) = place { return address.host }
        return nil
    }

    /// Host and port; nil for an `ipc://` endpoint.
    package var address: Address? {
        if case .network(let address) = place { return address }
        return nil
    }

    /// Whether this names every interface of the host: fine for binding, useless for connecting.
    var isWildcard: Bool {
        if case .network(let address) = place { return address.isWildcard }
        return false
    }
}

/// A TCP address, `HOST:PORT` or `[IPV6]:PORT`.
public struct Address: Hashable, Sendable, CustomStringConvertible {
    /// A name, an address, or `*` for all interfaces; an IPv6 address without its brackets.
    public let host: String
    /// 1 to 65535.
    public let port: UInt16

    /// - Parameter text: what stands in the file.
    /// - Returns: nil when `text` is no address.
    init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        guard digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) else { return nil }
        guard let port = UInt16(digits), port > 0 else { return nil }
        var host = text[..<colon]
        let isBracketed = host.first == "[" && host.last == "]" && host.count > 2
        if isBracketed { host = host.dropFirst().dropLast() }
        let allowed: (Character) -> Bool = { character in
            guard character.isASCII else { return false }
            return character.isLetter || character.isNumber || ".-_".contains(character)
                || (isBracketed && ":%".contains(character))
        }
        guard !host.isEmpty, host == "*" || host.allSatisfy(allowed) else { return nil }
        self.host = String(host)
        self.port = port
    }

    /// An address as it stands; port 0 is the system's choice.
    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// The address as it is written: an IPv6 host in brackets.
    public var description: String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    /// Whether this is `*`, every interface of the host.
    package var isWildcard: Bool { host == "*" }

    var isEveryInterface: Bool {
        isWildcard || host == "0.0.0.0" || host == "::"
    }

    var isLoopback: Bool {
        host == "localhost" || host == "::1"
            || host.hasPrefix("127.") && host.utf8.allSatisfy { $0 == UInt8(ascii: ".") || 0x30...0x39 ~= $0 }
    }
}

/// Characters that have no place in a name, path or endpoint: they would break a log line or a file name, or turn the
/// direction of the text beside them. Peers refuse them, too.
func isUnprintable(_ character: Character) -> Bool {
    character.unicodeScalars.contains { scalar in
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: true
        case .format: 0x202A...0x202E ~= scalar.value || 0x2066...0x2069 ~= scalar.value
        default: false
        }
    }
}
