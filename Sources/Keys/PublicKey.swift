import MPaxosCZeroMQ

/// The public half of a CURVE key pair: 32 bytes, for people 40 characters of Z85 (ZeroMQ RFC 32, as CurveZMQ, RFC 26,
/// takes it).
public struct PublicKey: Hashable, Sendable, CustomStringConvertible {
    /// 32 of them.
    public let bytes: [UInt8]

    public static let textLength = 40
    package static let expected = "40 characters of Z85, as `mpaxos keys show` prints them"

    /// - Parameter text: 40 characters of Z85; nil when it is anything else.
    public init?(_ text: String) {
        guard let bytes = Z85.decode(text) else { return nil }
        self.bytes = bytes
    }

    /// - Parameter bytes: nil unless there are 32.
    package init?(bytes: some Collection<UInt8>) {
        guard bytes.count == Z85.byteCount else { return nil }
        self.bytes = Array(bytes)
    }

    /// The 40 characters.
    public var description: String { Z85.encode(bytes) }
}

/// The text of 32 bytes, which libzmq makes and reads.
enum Z85 {
    static let byteCount = 32
    static let alphabet = Set(
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#".utf8)

    /// Nil when `text` is not the one spelling of 32 bytes.
    static func decode(_ text: String) -> [UInt8]? {
        guard text.utf8.count == PublicKey.textLength, text.utf8.allSatisfy(alphabet.contains) else { return nil }
        var bytes = [UInt8](repeating: 0, count: byteCount)
        guard zmq_z85_decode(&bytes, text) != nil, encode(bytes) == text else { return nil }
        return bytes
    }

    static func encode(_ bytes: [UInt8]) -> String {
        var text = [CChar](repeating: 0, count: PublicKey.textLength + 1)
        zmq_z85_encode(&text, bytes, bytes.count)
        return String(decoding: text.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
