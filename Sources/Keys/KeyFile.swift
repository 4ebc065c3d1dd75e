import Glibc
import MPaxosCZeroMQ

/// Files of keys, in the form of CZMQ's certificates (ZeroMQ RFC 4, ZPL): pyzmq's `zmq.auth.load_certificate`, czmq's
/// `zcert_load` and JeroMQ's `ZCert` read them, and files of theirs are read here.
public enum KeyFile {
    /// Far more than a certificate has; a bound, so that a device or a pool named by mistake is not read whole.
    private static let largest = 64 << 10

    /// The key pair in the file at `path`, which nobody but its owner may be able to open.
    /// - Throws: when there is none, it is not kept secret, or holds no pair of keys; with a sentence.
    public static func read(_ path: String) throws(KeyFileError) -> KeyPair {
        let (text, mode) = try content(of: path)
        let (publicText, secretText) = (value(of: "public-key", in: text), value(of: "secret-key", in: text))
        guard let secretText else {
            throw publicText == nil
                ? KeyFileError(
                    path, "is no key file: it has no line `secret-key = \"...\"`; `mpaxos keys new` makes one")
                : KeyFileError(path, "has a public key, where a secret one belongs: name the file that has both")
        }
        // Only now: of a file that holds no secret, its mode is not what is wrong.
        try requireSecret(path, mode)
        guard secretText.utf8.count == PublicKey.textLength else {
            throw KeyFileError(
                path,
                "its secret key has \(secretText.utf8.count) characters, a key has \(PublicKey.textLength): bring back the file as it was, or make another pair with `mpaxos keys new`"
            )
        }
        guard let pair = KeyPair(secret: secretText) else {
            throw KeyFileError(path, "its secret key is not Z85: bring back the file as it was, or make another pair")
        }
        if let publicText, publicText != pair.publicKey.description {
            throw publicText == secretText
                ? KeyFileError(path, "has its public key in place of the secret one, too: make another pair")
                : KeyFileError(
                    path,
                    "its secret key belongs to the public key \(pair.publicKey), and not to the one beside it: bring back the file as it was, or make another pair"
                )
        }
        return pair
    }

    /// Makes the file at `path`, readable by its owner alone, and durable; a file that is there already is kept.
    /// - Parameter name: whose key it is, for people.
    public static func write(_ pair: KeyPair, named name: String, to path: String) throws(KeyFileError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else {
            throw errno == EEXIST
                ? KeyFileError(path, "exists already, and is not written over: whoever has its key would be locked out")
                : KeyFileError(path, "cannot be made: \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        let shown = name.unicodeScalars.filter { $0.isASCII && $0.value >= 32 && $0 != "\"" && $0 != "\\" }
        let text = """
            #   mPaxosSM key pair. The secret key is for whom it belongs to alone; the public one may be told to \
            anybody.
            metadata
                name = "\(String(String.UnicodeScalarView(shown)))"
            curve
                public-key = "\(pair.publicKey)"
                secret-key = "\(pair.secretText)"

            """
        let bytes = Array(text.utf8)
        // The mode that was asked for may have been cut down, never widened.
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0 else {
            let reason = String(cString: strerror(errno))
            unlink(path)
            throw KeyFileError(path, "cannot be written: \(reason)")
        }
    }

    /// The text of a file that nobody but its owner may be able to open: a key, or a token.
    package static func readSecret(_ path: String) throws(KeyFileError) -> String {
        let (text, mode) = try content(of: path)
        try requireSecret(path, mode)
        return text
    }

    /// The text of a file that anybody may read: a certificate.
    package static func readPublic(_ path: String) throws(KeyFileError) -> String {
        try content(of: path).text
    }

    private static func requireSecret(_ path: String, _ mode: mode_t) throws(KeyFileError) {
        guard mode & 0o077 != 0 else { return }
        throw KeyFileError(
            path,
            "its mode is \(String(mode, radix: 8)), so that others than its owner can open it: `chmod 600` it, and where others may have read it, put a new one in its place"
        )
    }

    private static func content(of path: String) throws(KeyFileError) -> (text: String, mode: mode_t) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw KeyFileError(path, "cannot be read: \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw KeyFileError(path, "is no file")
        }
        guard status.st_size <= largest else { throw KeyFileError(path, "is too large for what it should be") }
        var bytes = [UInt8](repeating: 0, count: largest)
        var count = 0
        while count < bytes.count {
            let got = bytes.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress! + count, $0.count - count) }
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else { throw KeyFileError(path, "cannot be read: \(String(cString: strerror(errno)))") }
            if got == 0 { break }
            count += got
        }
        guard let text = String(validating: bytes[..<count], as: UTF8.self) else {
            throw KeyFileError(path, "is not UTF-8 text")
        }
        return (text, status.st_mode & 0o777)
    }

    /// What follows `name =` in one of the lines, without its quotes.
    private static func value(of name: String, in text: String) -> String? {
        for line in text.split(whereSeparator: \.isNewline) {
            var rest = line.drop { $0 == " " || $0 == "\t" }
            guard rest.hasPrefix(name) else { continue }
            rest = rest.dropFirst(name.count).drop { $0 == " " || $0 == "\t" }
            guard rest.first == "=" else { continue }
            rest = rest.dropFirst().drop { $0 == " " || $0 == "\t" }
            // Both kinds of quotes are ZPL's; neither is a character of Z85.
            if let quote = rest.first, quote == "\"" || quote == "'" {
                rest = rest.dropFirst()
                return String(rest.prefix { $0 != quote })
            }
            return String(rest.prefix { $0 != " " && $0 != "\t" })
        }
        return nil
    }
}

/// What is wrong with a file of keys, as one line for a person. It never holds a byte of a secret.
public struct KeyFileError: Error, Sendable, Equatable, CustomStringConvertible {
    public let description: String

    package init(_ path: String, _ problem: String) {
        let printable = path.unicodeScalars.map { $0.value < 32 ? "?" : String($0) }.joined()
        description = "\(printable): \(problem)"
    }

    private init(_ description: String) { self.description = description }

    static let noCurve = KeyFileError(
        "the libzmq of this machine was built without CURVE: install one with libsodium, as Debian's is")

    /// Whether this machine's libzmq can encrypt at all.
    package static func requireCurve() throws(KeyFileError) {
        if zmq_has("curve") == 0 { throw .noCurve }
    }
}
