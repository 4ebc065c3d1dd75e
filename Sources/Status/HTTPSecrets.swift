import MPaxosKeys
import MPaxosTopology
import NIOHTTP1
import NIOSSL
import Synchronization

/// The certificate and the token of HTTP, as the files were that were read last: each connection, and each request,
/// takes what there is when it comes. Thread-safe.
package final class HTTPSecrets: Sendable {
    /// What was found in the files, sound and fitting together.
    package struct Contents: Sendable {
        /// Nil for plain HTTP.
        let tls: NIOSSLContext?
        /// Nil when nobody is asked for one.
        let token: HTTPToken?

        /// For people; nil where there is nothing.
        package var words: String? {
            switch (tls, token) {
            case (nil, nil): nil
            case (_, nil): "the certificate of HTTP"
            case (nil, _): "the token of HTTP"
            default: "the certificate and the token of HTTP"
            }
        }
    }

    private let state: Mutex<Contents>

    /// - Parameter options: nil for a replica without HTTP, which needs no files.
    /// - Throws: `.refused`, when a file is not as it must be.
    package init(_ options: Topology.HTTPOptions?) throws(ReplicaError) {
        state = Mutex(try Self.contents(of: options))
    }

    package var current: Contents { state.withLock { $0 } }

    /// What the files hold now that `options` names, to be taken by `replace`.
    /// - Throws: when one of them is not as it must be (`.refused`), or something comes or goes that a start alone
    ///   can change (`.configuration`).
    package func read(_ options: Topology.HTTPOptions?, of topology: String) throws(ReplicaError) -> Contents {
        let now = current
        guard (options?.certificate != nil) == (now.tls != nil), (options?.token != nil) == (now.token != nil) else {
            throw ReplicaError(
                .configuration,
                "\(topology): `certificate` or `token` under [http] has come or gone: while a replica runs it takes up what they hold, and takes a start to have or lose them"
            )
        }
        return try Self.contents(of: options)
    }

    /// From now on.
    package func replace(by contents: Contents) { state.withLock { $0 = contents } }

    private static func contents(of options: Topology.HTTPOptions?) throws(ReplicaError) -> Contents {
        do throws(KeyFileError) {
            return Contents(
                tls: try options?.certificate.map { pair throws(KeyFileError) in
                    try HTTPCertificate.context(chain: pair.chain, privateKey: pair.privateKey)
                },
                token: try options?.token.map { path throws(KeyFileError) in try HTTPToken(path) })
        } catch {
            throw ReplicaError(.refused, error.description)
        }
    }
}

/// A certificate and its private key, from files to what makes connections of them.
enum HTTPCertificate {
    static func context(chain path: String, privateKey keyPath: String) throws(KeyFileError) -> NIOSSLContext {
        let chain = try certificates(in: path)
        let key = try privateKey(in: keyPath)
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        // For a client's word that it is done, after ours.
        configuration.shutdownTimeout = .seconds(1)
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch NIOSSLError.failedToLoadPrivateKey {
            throw KeyFileError(
                keyPath,
                "does not belong to the first certificate of \(path): name the two that were made together, that of this host first among the certificates"
            )
        } catch {
            throw KeyFileError(path, "cannot be used as the certificate of HTTP: \(error)")
        }
    }

    private static func certificates(in path: String) throws(KeyFileError) -> [NIOSSLCertificate] {
        let text = try KeyFile.readPublic(path)
        // The parser takes no empty text.
        if text.contains("-----BEGIN"), let chain = try? NIOSSLCertificate.fromPEMBytes(Array(text.utf8)) {
            return chain
        }
        throw KeyFileError(
            path,
            "is no certificate in PEM: it has to begin with `-----BEGIN CERTIFICATE-----`, that of this host first, then those that it rests on"
        )
    }

    private static func privateKey(in path: String) throws(KeyFileError) -> NIOSSLPrivateKey {
        let text = try KeyFile.readSecret(path)
        guard !text.contains("ENCRYPTED") else {
            throw KeyFileError(
                path,
                "is locked by a passphrase, which nobody can tell a replica: `openssl pkey` writes it without, for a file of mode 600"
            )
        }
        if text.contains("-----BEGIN"), let key = try? NIOSSLPrivateKey(bytes: Array(text.utf8), format: .pem) {
            return key
        }
        throw KeyFileError(path, "is no private key in PEM: it has to begin with `-----BEGIN PRIVATE KEY-----`")
    }
}

/// What a request has to have where HTTP is not for everybody.
struct HTTPToken: Sendable {
    private static let lengths = 16...256
    private let bytes: [UInt8]

    /// Reads it from a file, whose newline at the end is not part of it.
    init(_ path: String) throws(KeyFileError) {
        var bytes = Array(try KeyFile.readSecret(path).utf8)
        if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
        if bytes.last == UInt8(ascii: "\r") { bytes.removeLast() }
        let how = "`head -c 24 /dev/urandom | base64` makes one"
        guard bytes.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw KeyFileError(
                path, "its token has bytes that are not printable ASCII, or a space, or more than one line: \(how)")
        }
        guard Self.lengths.contains(bytes.count) else {
            throw KeyFileError(
                path,
                "its token has \(bytes.count) bytes, and must have \(Self.lengths.lowerBound) to \(Self.lengths.upperBound): \(how)"
            )
        }
        self.bytes = bytes
    }

    /// Whether these are headers of somebody who has it.
    func isIn(_ headers: HTTPHeaders) -> Bool {
        let fields = headers["Authorization"]
        guard fields.count == 1 else { return false }
        let words = fields[0].utf8.split(separator: UInt8(ascii: " "))
        guard words.count == 2, String(words[0])?.lowercased() == "bearer" else { return false }
        return matches(words[1])
    }

    /// How long it takes depends on how much is given alone, not on where that differs.
    private func matches(_ given: some Collection<UInt8>) -> Bool {
        var difference: UInt8 = given.count == bytes.count ? 0 : 1
        for (place, byte) in given.enumerated() { difference |= byte ^ bytes[place % bytes.count] }
        return difference == 0
    }
}
