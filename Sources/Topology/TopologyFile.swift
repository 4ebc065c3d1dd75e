import Glibc
import TOMLKit

/// Bytes of a topology file, and the table that they parse to.
enum TopologyFile {
    /// Far more than any topology needs; a bound, so that a device or a pool named by mistake is not read whole.
    static let largest = 1 << 20
    /// The same for a file of client keys, of which there may be many.
    static let largestKeys = 16 << 20
    /// Milliseconds that are waited for more of a pipe.
    private static let patience: Int32 = 5_000

    /// - Throws: when a file that says who may come in can be written by everybody.
    static func requireGuarded(_ path: String) throws(TopologyError) {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o002 != 0 else { return }
        throw TopologyError(
            file: path,
            "its mode is \(String(status.st_mode & 0o777, radix: 8)), so that everybody on this host can let himself in with a key: `chmod o-w` it, and see that its keys are those that you know"
        )
    }

    /// - Parameter isPatient: a pipe is waited for, as it is by other commands; else for some seconds, so that one into
    ///   which nobody writes does not hold up a replica that runs.
    /// - Throws: when the file cannot be opened or read, or is too large to be what it should.
    static func read(
        _ path: String, largest: Int = largest, isPatient: Bool = true
    ) throws(TopologyError) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | (isPatient ? 0 : O_NONBLOCK))
        guard descriptor >= 0 else { throw unreadable(path, errno) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count <= largest {
            var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let isReady = poll(&ready, 1, isPatient ? -1 : patience)
            if isReady < 0 && errno == EINTR { continue }
            guard isReady > 0 else {
                throw TopologyError(file: path, "cannot be read: it is a pipe into which nobody writes")
            }
            let got = part.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if got < 0 && (errno == EINTR || errno == EAGAIN) { continue }
            guard got >= 0 else { throw unreadable(path, errno) }
            if got == 0 { break }
            bytes += part[..<got]
        }
        guard bytes.count <= largest else {
            throw TopologyError(
                file: path,
                "is larger than \(ByteSize.describe(largest)): not \(largest == self.largest ? "a topology file" : "a file of client keys")"
            )
        }
        return bytes
    }

    /// - Throws: when the bytes are no TOML, with the position of the offence.
    static func parse(_ bytes: [UInt8], file: String) throws(TopologyError) -> TOMLTable {
        // The parser takes a C string: what follows a zero byte would be ignored. TOML allows neither that byte nor
        // text that is not UTF-8.
        if let zero = bytes.firstIndex(of: 0) {
            let (line, column) = position(of: zero, in: bytes)
            throw TopologyError(file: file, line: line, column: column, "a zero byte is not allowed in TOML")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            let (line, column) = position(of: firstInvalid(in: bytes), in: bytes)
            throw TopologyError(file: file, line: line, column: column, "not UTF-8 text")
        }
        if let offence = namelessHeader(in: bytes) {
            let (line, column) = position(of: offence, in: bytes)
            throw TopologyError(
                file: file, line: line, column: column, "expected the name of a table after the bracket")
        }
        do {
            return try TOMLTable(string: text)
        } catch let error as TOMLParseError {
            throw TopologyError(
                file: file, line: error.source.begin.line, column: error.source.begin.column, error.description)
        } catch {
            throw TopologyError(file: file, "\(error)")
        }
    }

    private static func unreadable(_ path: String, _ code: CInt) -> TopologyError {
        TopologyError(file: path, "cannot be read: \(String(cString: strerror(code)))")
    }

    /// The parser ends the process on a table header whose bracket is followed by what begins no key: found before it
    /// is. Where such a line belongs to a nested array or a string, no topology is lost: it has neither.
    private static func namelessHeader(in bytes: [UInt8]) -> Int? {
        let bracket = UInt8(ascii: "[")
        func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        var place = 0
        while place < bytes.count {
            while place < bytes.count && isBlank(bytes[place]) { place += 1 }
            if place < bytes.count && bytes[place] == bracket {
                place += 1
                if place < bytes.count && bytes[place] == bracket { place += 1 }
                while place < bytes.count && isBlank(bytes[place]) { place += 1 }
                guard place < bytes.count else { return nil }
                let scalar = Unicode.Scalar(bytes[place])
                let beginsKey = scalar.properties.isAlphabetic || scalar.properties.numericType != nil
                if !(scalar.isASCII && beginsKey) && !"-_\"']".unicodeScalars.contains(scalar) { return place }
            }
            while place < bytes.count && bytes[place] != UInt8(ascii: "\n") { place += 1 }
            place += 1
        }
        return nil
    }

    /// Where the longest prefix that is UTF-8 ends.
    private static func firstInvalid(in bytes: [UInt8]) -> Int {
        var decoder = Unicode.UTF8.ForwardParser()
        var iterator = bytes.makeIterator()
        var valid = 0
        while case .valid(let scalar) = decoder.parseScalar(from: &iterator) { valid += scalar.count }
        return valid
    }

    private static func position(of index: Int, in bytes: [UInt8]) -> (line: Int, column: Int) {
        let before = bytes[..<index]
        let newline = UInt8(ascii: "\n")
        let lineStart = before.lastIndex(of: newline).map { $0 + 1 } ?? 0
        let line = before.reduce(into: 1) { count, byte in if byte == newline { count += 1 } }
        let column = String(decoding: bytes[lineStart..<index], as: UTF8.self).unicodeScalars.count + 1
        return (line, column)
    }
}
