import Foundation
import Testing

@testable import MPaxosKeys

@Suite struct KeyFileTests {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("mpaxos-keys-\(UUID().uuidString)").path

    init() throws { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true) }

    private func write(_ text: String, mode: Int = 0o600) throws -> String {
        let path = folder + "/\(UUID().uuidString)"
        try text.write(toFile: path, atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        return path
    }

    private func complaint(about text: String, mode: Int = 0o600) throws -> String {
        let path = try write(text, mode: mode)
        let result = Result { () throws(KeyFileError) in try KeyFile.read(path) }
        guard case .failure(let error) = result else { return "none" }
        #expect(error.description.hasPrefix(path + ": "))
        return String(error.description.dropFirst(path.count + 2))
    }

    private func certificate(_ lines: String...) -> String {
        "metadata\ncurve\n" + lines.joined(separator: "\n") + "\n"
    }

    @Test func whatIsWrittenIsRead() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let pair = try KeyPair.generate()
        let path = folder + "/a.key"
        try KeyFile.write(pair, named: "replica-0", to: path)
        let read = try KeyFile.read(path)
        #expect(read.publicKey == pair.publicKey)
        #expect(read.secret == pair.secret)
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
        #expect(throws: KeyFileError.self) { try KeyFile.write(pair, named: "again", to: path) }
        #expect(try KeyFile.read(path).publicKey == pair.publicKey)
    }

    @Test func refusesWhatIsNoSecret() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let (pair, other) = (try KeyPair.generate(), try KeyPair.generate())
        let good = certificate("public-key = \"\(pair.publicKey)\"", "secret-key = \"\(pair.secretText)\"")
        #expect(try complaint(about: good) == "none")
        #expect(try complaint(about: certificate("secret-key = '\(pair.secretText)'")) == "none")
        for mode in [0o640, 0o604, 0o610, 0o622] {
            #expect(try complaint(about: good, mode: mode).hasPrefix("its mode is \(String(mode, radix: 8))"))
        }
        #expect(try complaint(about: "").contains("is no key file"))
        #expect(
            try complaint(about: certificate("public-key = \"\(pair.publicKey)\"")).contains("a secret one belongs"))
        let short = certificate("secret-key = \"\(pair.secretText.dropLast())\"")
        #expect(try complaint(about: short).contains("has 39 characters, a key has 40"))
        let strange = certificate("secret-key = \"\(pair.secretText.dropLast())~\"")
        #expect(try complaint(about: strange).contains("is not Z85"))
        let mixed = certificate("public-key = \"\(other.publicKey)\"", "secret-key = \"\(pair.secretText)\"")
        #expect(try complaint(about: mixed).contains("and not to the one beside it"))
        let twice = certificate("public-key = \"\(pair.publicKey)\"", "secret-key = \"\(pair.publicKey)\"")
        #expect(try complaint(about: twice).contains("in place of the secret one"))
        #expect(throws: KeyFileError.self) { try KeyFile.read(folder + "/none") }
        #expect(throws: KeyFileError.self) { try KeyFile.read(folder) }
        #expect(throws: KeyFileError.self) { try KeyFile.read("/dev/zero") }
    }

    @Test func noSecretIsToldInErrorsOrDescriptions() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let (pair, other) = (try KeyPair.generate(), try KeyPair.generate())
        for text in ["\(pair)", String(reflecting: pair), "\(Mirror(reflecting: pair).children.map(\.value))"] {
            #expect(!text.contains(pair.secretText))
        }
        for text in [
            certificate("public-key = \"\(other.publicKey)\"", "secret-key = \"\(pair.secretText)\""),
            certificate("secret-key = \"\(pair.secretText)0\""),
            certificate("secret-key = \"~\(pair.secretText.dropFirst())\""),
        ] {
            #expect(try !complaint(about: text).contains(String(pair.secretText.dropFirst(5).dropLast(5))))
        }
    }

    @Test func aPublicKeyHasOneSpelling() throws {
        let key = try KeyPair.generate().publicKey
        #expect(PublicKey(key.description) == key)
        #expect(PublicKey(key.description + "0") == nil)
        #expect(PublicKey(String(repeating: "#", count: 40)) == nil)
        #expect(PublicKey(String(repeating: "é", count: 20)) == nil)
        #expect(PublicKey("") == nil)
        #expect(PublicKey(bytes: key.bytes) == key)
        #expect(PublicKey(bytes: key.bytes.dropLast()) == nil)
    }
}
