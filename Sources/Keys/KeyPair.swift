import MPaxosCZeroMQ
import MPaxosInvariants

/// A CURVE key pair: who has the secret half can prove that the public one is its own.
///
/// It is printed and described without its secret.
public struct KeyPair: Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public let publicKey: PublicKey
    /// 32 bytes.
    package let secret: [UInt8]

    /// A new pair, of randomness that the operating system gives.
    /// - Throws: where the machine's libzmq has no CURVE.
    public static func generate() throws(KeyFileError) -> KeyPair {
        var publicText = [CChar](repeating: 0, count: PublicKey.textLength + 1)
        var secretText = publicText
        guard zmq_curve_keypair(&publicText, &secretText) == 0, let pair = KeyPair(secret: text(of: secretText)) else {
            throw .noCurve
        }
        invariant(pair.publicKey.description == text(of: publicText), "a secret key has one public key")
        return pair
    }

    /// The pair of a secret half; nil when `secret` is not 40 characters of Z85.
    init?(secret: String) {
        guard let bytes = Z85.decode(secret) else { return nil }
        var publicText = [CChar](repeating: 0, count: PublicKey.textLength + 1)
        guard zmq_curve_public(&publicText, secret) == 0, let key = PublicKey(Self.text(of: publicText)) else {
            return nil
        }
        self.secret = bytes
        publicKey = key
    }

    /// For the file that keeps it, and nothing else.
    var secretText: String { Z85.encode(secret) }

    public var description: String { "key pair \(publicKey)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: ["publicKey": publicKey]) }

    private static func text(of buffer: [CChar]) -> String {
        String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
