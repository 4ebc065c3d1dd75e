import Foundation
import MPaxosConsensus
import MPaxosKeys
import MPaxosMessaging
import MPaxosTopology
import MPaxosWire
import Testing

@testable import MPaxosMetrics
@testable import MPaxosTransport

/// Each key belongs to one replica: who has it speaks for that one, whatever he says.
@Suite struct PeerKeyTests {
    /// Replica 1, with its own key and all that can be known, says HELLO as replica 2.
    @Test(arguments: [true, false]) func whoHasAKeySpeaksForNobodyElse(isFounded: Bool) throws {
        let rig = try HandshakeRig(isFounded: isFounded, keys: true, holder: 1)
        for lie in 0..<3 {
            var hello = rig.hello
            hello.ticket = 7
            hello.proof = UInt64(lie)
            if lie == 1 { hello.life = Life(bootCount: 1000, nonce: 1) }
            if lie == 2 { hello.members[0].life = Life(bootCount: 1000, nonce: 1) }
            let answer = try #require(
                try rig.answer(to: Handshake.hello(hello).encode(sender: 2), byOther: true))
            guard case .refused(let refusal) = answer.handshake else {
                Issue.record("REFUSED is expected, not \(answer.handshake)")
                continue
            }
            #expect(refusal.reason.contains("says that it is replica 2 has the key of replica 1"))
        }
        #expect(rig.calls == 0, "nobody is called for a liar")
        #expect(!rig.isConnected)
        #expect(rig.board.strangersRefused.load() == 3)
        // The real one comes in its life, which is before the one that was made up.
        rig.send(try rig.proven(rig.hello)) { rig.isConnected }
        #expect(rig.isConnected)
    }

    /// With the key of replica 2, and its proof, as a process on a copy has them: the callback is for such.
    @Test func aKeyDoesNotTakeThePlaceOfTheProof() throws {
        let rig = try HandshakeRig(keys: true, holder: 2)
        var hello = rig.hello
        hello.ticket = 9
        rig.send(Handshake.hello(hello).encode(sender: 2), byOther: true) { rig.calls > 0 }
        #expect(rig.calls == 1 && !rig.isConnected)
    }

    @Test func aLinkEndsWithTheKeyThatItWasMadeWith() throws {
        let rig = try HandshakeRig(keys: true)
        rig.send(try rig.proven(rig.hello)) { rig.isConnected }
        #expect(rig.isConnected)
        try rig.withdrawKey(of: 1)
        rig.turn()
        #expect(rig.isConnected, "another's key is nothing to this link")
        try rig.withdrawKey(of: 2)
        rig.turn()
        #expect(!rig.isConnected)
        // The connection may still stand for a moment: what comes over it is a stranger's.
        var hello = rig.hello
        hello.ticket = 8
        let calls = rig.calls
        rig.send(Handshake.hello(hello).encode(sender: 2)) { rig.board.strangersRefused.load() > 0 }
        #expect(rig.board.strangersRefused.load() > 0 && rig.calls == calls && !rig.isConnected)
    }
}

/// Who may come in, at which port.
@Suite struct KeyRingTests {
    private func caller(_ key: PublicKey, _ domain: String) -> ZAPHandler.Caller {
        ZAPHandler.Caller(domain: domain, address: "192.0.2.1", key: key)
    }

    @Test func eachKeyIsOfOnePort() throws {
        let keys = try KeyedTopology()
        let (log, board) = (ErrorLog(), StatusBoard(members: [0, 1, 2]))
        let ring = try keys.ring(of: 0, board: board, log: log)
        for (index, pair) in keys.replicas.enumerated() {
            let number = try #require(ring.admit(caller(pair.publicKey, KeyRing.peers)))
            #expect(ring.holder(of: number) == index && ring.permission(of: number) == .none)
            #expect(ring.key(of: number) == pair.publicKey)
            #expect(ring.admit(caller(pair.publicKey, KeyRing.clients)) == nil)
        }
        for (role, pair) in keys.clients {
            let number = try #require(ring.admit(caller(pair.publicKey, KeyRing.clients)))
            #expect(ring.permission(of: number).rawValue == role.rank && ring.holder(of: number) == nil)
            #expect(ring.admit(caller(pair.publicKey, KeyRing.peers)) == nil)
        }
        let stranger = try KeyPair.generate().publicKey
        for domain in [KeyRing.peers, KeyRing.clients, ""] { #expect(ring.admit(caller(stranger, domain)) == nil) }
        #expect(ring.permission(of: nil) == .none && ring.holder(of: nil) == nil && ring.key(of: nil) == nil)
        #expect(
            ring.permission(of: 1_000_000) == .none && ring.holder(of: 1_000_000) == nil
                && ring.key(of: 1_000_000) == nil)
        #expect(board.peerKeysRefused.load() == 4 && board.clientKeysRefused.load() == 5)
    }

    @Test func keysAreWithdrawnAndAdded() throws {
        let keys = try KeyedTopology()
        let ring = try keys.ring(of: 0, log: ErrorLog())
        let reader = keys.clients[.read]!.publicKey
        let number = try #require(ring.admit(caller(reader, KeyRing.clients)))
        try keys.writeClients([.write, .admin])
        let before = ring.generation
        try ring.load(try keys.topology())
        #expect(ring.generation > before)
        #expect(ring.permission(of: number) == .none && ring.admit(caller(reader, KeyRing.clients)) == nil)
        try keys.writeClients([.read])
        try ring.load(try keys.topology())
        #expect(ring.permission(of: number) == .read && ring.admit(caller(reader, KeyRing.clients)) == number)

        let (old, new) = (keys.publicKeys[2][0], try KeyPair.generate().publicKey)
        keys.publicKeys[2] = [old, new]
        try keys.write()
        try ring.load(try keys.topology())
        for key in [old, new] { #expect(ring.holder(of: ring.admit(caller(key, KeyRing.peers))) == 2) }
        keys.publicKeys[2] = [new]
        try keys.write()
        try ring.load(try keys.topology())
        #expect(ring.admit(caller(old, KeyRing.peers)) == nil && ring.keys(of: 2) == [new])
    }

    /// A file that is wrong changes nothing.
    @Test func aWrongFileChangesNothing() throws {
        let keys = try KeyedTopology()
        let ring = try keys.ring(of: 0, log: ErrorLog())
        let writer = keys.clients[.write]!.publicKey
        let good = try String(contentsOfFile: keys.clientsFile, encoding: .utf8)
        let wrong = [
            "nonsense", "", good + good, good.replacing("\"write\"", with: "\"boss\""),
            good.replacing("\(writer)", with: "\(keys.replicas[1].publicKey)"),
            good.replacing("\(writer)", with: "short"),
        ]
        for text in wrong {
            try text.write(toFile: keys.clientsFile, atomically: true, encoding: .utf8)
            #expect(throws: ReplicaError.self) { try ring.load(try keys.topology()) }
            #expect(ring.permission(of: ring.admit(caller(writer, KeyRing.clients))) == .write)
        }
        try good.write(toFile: keys.clientsFile, atomically: true, encoding: .utf8)
        keys.publicKeys[0] = [try KeyPair.generate().publicKey]
        try keys.write()
        #expect(throws: ReplicaError.self, "its own key is not there any more") { try ring.load(try keys.topology()) }
        #expect(ring.keys(of: 0) == [keys.replicas[0].publicKey])
        #expect(ring.generation == 1)
    }

    @Test func theSecretFileIsOfThisReplica() throws {
        let keys = try KeyedTopology()
        keys.publicKeys.swapAt(0, 1)
        try keys.write()
        let error = #expect(throws: ReplicaError.self) { try keys.ring(of: 0, log: ErrorLog()) }
        #expect(error?.kind == .refused)
        #expect(error?.description.contains("which is none of replica 0") == true)
    }
}
