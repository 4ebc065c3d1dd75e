import Foundation
import Logging
import MPaxosCSupport
import MPaxosTopology
import NIOSSL
import Testing

@testable import MPaxosMetrics
@testable import MPaxosStatus

/// A folder with a certificate, its private key and a token, which tests spoil.
private final class SecretFiles {
    static let certificates = #filePath.split(separator: "/").dropLast(2).reduce("") { "\($0)/\($1)" } + "/Certificates"
    static let token = "a-token-of-24-characters"
    private let folder: TestFolder

    var certificate: String { folder.path + "/certificate.pem" }
    var privateKey: String { folder.path + "/key.pem" }
    var token: String { folder.path + "/http.token" }

    init() throws {
        folder = try TestFolder()
        try put("first.certificate", at: certificate)
        try put("first.key", at: privateKey)
        try write(Self.token + "\n", to: token)
    }

    /// One of the files of `Tests/Certificates`.
    func put(_ name: String, at path: String) throws {
        try write(try String(contentsOfFile: "\(Self.certificates)/\(name).pem", encoding: .utf8), to: path)
    }

    func write(_ text: String, to path: String, mode: Int = 0o600) throws {
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    }

    func topology(certificate: Bool = true, token: Bool = true, limits: String = "") throws -> Topology {
        var text = """
            name = "c"
            [[replica]]
            id = 0
            peer = "tcp://127.0.0.1:7100"
            client = "tcp://127.0.0.1:7200"
            [limits]
            \(limits)
            [http]

            """
        if certificate { text += "certificate = \"\(self.certificate)\"\nprivate_key = \"\(privateKey)\"\n" }
        if token { text += "token = \"\(self.token)\"\n" }
        return try Topology(parsing: Array(text.utf8), file: "http.toml")
    }

    func secrets() throws -> HTTPSecrets { try HTTPSecrets(try topology().http) }

    /// What is said of the file at `path`.
    func complaint(about path: String) -> String {
        let result = Result { try secrets() }
        guard case .failure(let error as ReplicaError) = result else { return "none" }
        #expect(error.kind == .refused)
        #expect(error.description.hasPrefix(path + ": "), "\(error)")
        return String(error.description.dropFirst(path.count + 2))
    }
}

@Suite struct HTTPSecretsTests {
    private let files: SecretFiles

    init() throws { files = try SecretFiles() }

    @Test func nothingNeedsNoFiles() throws {
        #expect(try HTTPSecrets(nil).current.words == nil)
        #expect(try HTTPSecrets(files.topology(certificate: false, token: false).http).current.words == nil)
        #expect(try files.secrets().current.words == "the certificate and the token of HTTP")
    }

    @Test(arguments: [0o640, 0o604, 0o660, 0o601])
    func secretsAreTheirOwnersAlone(mode: Int) throws {
        for path in [files.privateKey, files.token] {
            try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
            let said = files.complaint(about: path)
            #expect(said.hasPrefix("its mode is \(String(mode, radix: 8)),") && said.contains("`chmod 600`"), "\(said)")
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
        }
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: files.certificate)
        #expect(files.complaint(about: "") == "none")
    }

    @Test func filesThatAreMissing() throws {
        for path in [files.certificate, files.privateKey, files.token] {
            try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
            #expect(files.complaint(about: path) == "cannot be read: No such file or directory")
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
            #expect(files.complaint(about: path) == "is no file")
            try FileManager.default.removeItem(atPath: path)
            try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        }
    }

    @Test(arguments: ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
    func whatIsNoPEM(text: String) throws {
        try files.write(text, to: files.certificate)
        #expect(files.complaint(about: files.certificate).hasPrefix("is no certificate in PEM"))
        try files.put("first.key", at: files.certificate)
        #expect(files.complaint(about: files.certificate).hasPrefix("is no certificate in PEM"))
        try files.put("first.certificate", at: files.certificate)
        try files.write(text, to: files.privateKey)
        #expect(files.complaint(about: files.privateKey).hasPrefix("is no private key in PEM"))
        try files.put("first.certificate", at: files.privateKey)
        #expect(files.complaint(about: files.privateKey).hasPrefix("is no private key in PEM"))
        try files.write("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", to: files.privateKey)
        #expect(files.complaint(about: files.privateKey).hasPrefix("is locked by a passphrase"))
    }

    @Test func keyOfAnotherCertificate() throws {
        try files.put("second.key", at: files.privateKey)
        let said = files.complaint(about: files.privateKey)
        #expect(said.hasPrefix("does not belong to the first certificate of \(files.certificate)"), "\(said)")
    }

    @Test(arguments: [
        ("", "has 0 bytes"), ("123456789012345\n", "has 15 bytes"),
        (String(repeating: "a", count: 257), "has 257 bytes"),
        ("two words, one token", "not printable"), ("one line of a token\nanother one", "not printable"),
        ("a-token-that-is-né-ASCII", "not printable"), ("a-token-with-\u{7}-a-bell", "not printable"),
    ])
    func tokensThatAreNone(text: String, what: String) throws {
        try files.write(text, to: files.token)
        let said = files.complaint(about: files.token)
        #expect(said.hasPrefix("its token has ") && said.contains(what), "\(said)")
    }

    @Test func tokensThatAreGood() throws {
        for text in ["1234567890123456", String(repeating: "~", count: 256) + "\n", "a-token-of-windows\r\n"] {
            try files.write(text, to: files.token)
            #expect(files.complaint(about: "") == "none")
        }
    }

    @Test func headersWithTheToken() throws {
        let token = try #require(try files.secrets().current.token)
        for value in ["Bearer \(SecretFiles.token)", "bearer \(SecretFiles.token)", "BEARER  \(SecretFiles.token)"] {
            #expect(token.isIn(["authorization": value]), "\(value)")
        }
        for value in [
            "", "Bearer", "Bearer ", SecretFiles.token, "Basic \(SecretFiles.token)", "Bearer \(SecretFiles.token)x",
            "Bearer \(SecretFiles.token.dropLast())", "Bearer \(SecretFiles.token) x",
            "Bearer \(SecretFiles.token.uppercased())", "Bearer \(SecretFiles.token + SecretFiles.token)",
        ] {
            #expect(!token.isIn(["Authorization": value]), "\(value)")
        }
        let good = "Bearer \(SecretFiles.token)"
        #expect(!token.isIn(["Authorization": good, "authorization": good]))
        #expect(!token.isIn([:]))
    }

    /// A wrong file changes nothing, and neither does a topology that wants more, or less, than there was.
    @Test func readingAgain() throws {
        let secrets = try files.secrets()
        let topology = try files.topology()
        try files.write("short", to: files.token)
        #expect(throws: ReplicaError.self) { try secrets.read(topology.http, of: topology.file) }
        #expect(try #require(secrets.current.token).isIn(["Authorization": "Bearer \(SecretFiles.token)"]))
        try files.write("another-token-that-is-good", to: files.token)
        secrets.replace(by: try secrets.read(topology.http, of: topology.file))
        #expect(try #require(secrets.current.token).isIn(["Authorization": "Bearer another-token-that-is-good"]))
        for other in [try files.topology(certificate: false), try files.topology(token: false)] {
            let error = #expect(throws: ReplicaError.self) { try secrets.read(other.http, of: other.file) }
            #expect(error?.kind == .configuration)
            #expect(error?.description.contains("has come or gone") == true)
        }
    }
}

/// The server with secrets; without them it is in `StatusServerTests`.
@Suite struct SecretStatusServerTests {
    private let files: SecretFiles
    private let board = StatusBoard(members: [0])

    init() throws { files = try SecretFiles() }

    private func server(_ topology: Topology, _ secrets: HTTPSecrets) async throws -> (StatusServer, UInt16) {
        let report = StatusReport(board: board, cluster: "c", id: 0, durability: "msync", version: "0", started: 0)
        let server = StatusServer(
            address: Address(host: "127.0.0.1", port: 0), limits: topology.limits, report: report, secrets: secrets,
            logger: Logger(label: "test"))
        let end = ContinuousClock.now + .seconds(20)
        while server.listeningPort == nil, .now < end { try await Task.sleep(for: .milliseconds(5)) }
        return (server, try #require(server.listeningPort))
    }

    @Test func tokenInTheClear() async throws {
        let topology = try files.topology(certificate: false)
        let secrets = try HTTPSecrets(topology.http)
        let (server, port) = try await server(topology, secrets)
        defer { server.stop() }
        let good = "Authorization: Bearer \(SecretFiles.token)"
        for path in ["/status", "/metrics", "/nothing", "/", "/healthz/x", "/health"] {
            for headers in [[], ["Authorization: Bearer a-token-of-24-charActers"], [good, good]] {
                let answer = try HTTPProbe.get(path, port: port, headers: headers)
                let expected = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer\r\n\r\n"
                #expect(answer == expected, "\(path), \(headers): \(answer)")
            }
        }
        #expect(try HTTPProbe.say(HTTPProbe.request("/healthz", "POST"), port: port).hasPrefix("HTTP/1.1 401"))
        #expect(board.httpRequestsDenied.load() == 19)
        #expect(try HTTPProbe.get("/healthz?a", port: port).hasPrefix("HTTP/1.1 503"))
        #expect(try HTTPProbe.get("/status", port: port, headers: [good]).hasPrefix("HTTP/1.1 200"))
        #expect(try HTTPProbe.get("/nothing", port: port, headers: [good]).hasPrefix("HTTP/1.1 404"))
        let metrics = try HTTPProbe.get("/metrics", port: port, headers: [good])
        #expect(metrics.contains("\nmpaxos_http_requests_denied_total 19\n"))

        try files.write("another-token-that-is-good", to: files.token)
        secrets.replace(by: try secrets.read(topology.http, of: topology.file))
        #expect(try HTTPProbe.get("/status", port: port, headers: [good]).hasPrefix("HTTP/1.1 401"))
        #expect(
            try HTTPProbe.get("/status", port: port, headers: ["authorization: bearer another-token-that-is-good"])
                .hasPrefix("HTTP/1.1 200"))
    }

    @Test func certificateThatIsReadAgain() async throws {
        let topology = try files.topology()
        let secrets = try HTTPSecrets(topology.http)
        let (server, port) = try await server(topology, secrets)
        defer { server.stop() }
        let (first, second) = (
            SecretFiles.certificates + "/first.certificate.pem", SecretFiles.certificates + "/second.certificate.pem"
        )
        let good = ["Authorization: Bearer \(SecretFiles.token)"]
        for version in [TLSVersion.tlsv12, .tlsv13] {
            let status = try await HTTPProbe.getTLS(
                "/status", port: port, trusting: first, headers: good, atMost: version)
            #expect(status.hasPrefix("HTTP/1.1 200") && status.contains("\"cluster\":\"c\""), "\(status)")
        }
        #expect(try await HTTPProbe.getTLS("/status", port: port, trusting: first).hasPrefix("HTTP/1.1 401"))
        #expect(try await HTTPProbe.getTLS("/healthz", port: port, trusting: first).hasPrefix("HTTP/1.1 503"))
        await #expect(throws: NIOSSLError.self) {
            try await HTTPProbe.getTLS("/healthz", port: port, trusting: first, atMost: .tlsv11)
        }
        await #expect(throws: (any Error).self) {
            try await HTTPProbe.getTLS("/healthz", port: port, trusting: second)
        }

        try files.put("second.certificate", at: files.certificate)
        #expect(throws: ReplicaError.self) { try secrets.read(topology.http, of: topology.file) }
        #expect(try await HTTPProbe.getTLS("/healthz", port: port, trusting: first).hasPrefix("HTTP/1.1 503"))
        try files.put("second.key", at: files.privateKey)
        secrets.replace(by: try secrets.read(topology.http, of: topology.file))
        #expect(try await HTTPProbe.getTLS("/healthz", port: port, trusting: second).hasPrefix("HTTP/1.1 503"))
        await #expect(throws: (any Error).self) {
            try await HTTPProbe.getTLS("/healthz", port: port, trusting: first)
        }
    }

    /// Those who say what is no TLS, or nothing, take no place from one who asks.
    @Test func strangersToTLS() async throws {
        let topology = try files.topology(limits: "http_connections = 4")
        let (server, port) = try await server(topology, try HTTPSecrets(topology.http))
        let first = SecretFiles.certificates + "/first.certificate.pem"
        let plain = try HTTPProbe.get("/healthz", port: port)
        #expect(!plain.contains("HTTP"), "\(plain)")
        var halfOpen: [Int32] = []
        defer { for descriptor in halfOpen { close(descriptor) } }
        for number in 0..<20 {
            let descriptor = try HTTPProbe.connect(port: port)
            halfOpen.append(descriptor)
            // The head of a handshake, and some of it.
            let begin: [UInt8] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]
            send(descriptor, begin, number % begin.count, Int32(MSG_NOSIGNAL))
        }
        #expect(try await HTTPProbe.getTLS("/healthz", port: port, trusting: first).hasPrefix("HTTP/1.1 503"))
        // They were closed, in their order, and long before the patience with one alone is over.
        let begin = csupport_monotonic_us()
        for descriptor in halfOpen.dropLast(4) { _ = HTTPProbe.remainder(descriptor) }
        #expect(csupport_monotonic_us() - begin < 5_000_000)
        server.stop()
        #expect(throws: HTTPProbe.ConnectionRefused.self) { try HTTPProbe.connect(port: port) }
    }
}
