import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosStorage
import MPaxosWire
import Testing

@testable import MPaxosPipeline

/// Batches whose checksum is right and that are no commands: no replica votes for one, orders it or begins to execute
/// it.
@Suite struct ForgedBatchTests {
    private static func record(origin: UInt16, body: [UInt8] = [1, 2, 3]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: CommandRecord.size(bodyCount: body.count))
        bytes.withUnsafeMutableBytes { place in
            _ = body.withUnsafeBytes {
                CommandRecord.write(
                    into: place.baseAddress!, kind: .submit, origin: origin, tag: 5, session: 0, sequence: 0, body: $0)
            }
        }
        return bytes
    }

    private static let forged: [(what: String, bytes: [UInt8])] = [
        ("no records", [UInt8](repeating: 0xA5, count: 32)), ("zeros", [UInt8](repeating: 0, count: 32)),
        ("a piece of a record", Array(record(origin: 0).dropLast(8))),
        ("bytes behind the last record", record(origin: 0) + [0, 0, 0, 0, 0, 0, 0, 0]),
        ("a replica that there is not", record(origin: 0) + record(origin: 3)),
    ]

    private static func checksum(_ bytes: [UInt8]) -> UInt32 {
        bytes.withUnsafeBytes { Checksum.of($0.baseAddress!, $0.count) }
    }

    private static func frame(_ kind: Message.Kind, _ instance: UInt64, view: UInt64, _ payload: [UInt8]) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: PeerHeader.size)
        let message = Message(
            kind: kind, view: view, instance: instance, commit: kind == .decided ? instance : 0,
            batch: Batch(offset: 0, length: UInt32(payload.count), checksum: checksum(payload)))
        header.withUnsafeMutableBytes { PeerFrame.encodeHeader(of: message, sender: 1, into: $0.baseAddress!) }
        return header + payload
    }

    /// By the leader, whole; then the same with what is a run of commands.
    @Test(arguments: [Message.Kind.accept, .decided]) func noReplicaVotesForOne(kind: Message.Kind) throws {
        let rig = try EngineRig()
        try rig.settle()
        let victim = rig.replicas[0]
        let view = victim.board.view.load()
        let figures = victim.board.peers[1]
        for (what, bytes) in Self.forged {
            let before = figures.framesMalformed.load()
            victim.arrived(Self.frame(kind, 1, view: view, bytes), from: 1)
            rig.run(for: 1_000)
            #expect(figures.framesMalformed.load() == before + 1, "\(what)")
            var votes = 0
            victim.acceptor.forEachEntry { _, _, _ in votes += 1 }
            #expect(votes == 0, "\(what)")
        }
        rig.replicas[1].submit(7, bytes: 100)
        let isDecided = rig.run(for: 2_000_000, until: rig.isExecuted([7]))
        #expect(isDecided && victim.executed.map(\.tag) == [7])
        #expect(rig.replicas.map { $0.board.elections.load() } == [0, 1, 0])
    }

    /// A run that a follower hands to the leader has commands of its own clients alone.
    @Test func noLeaderOrdersOne() throws {
        let rig = try EngineRig()
        try rig.settle()
        let leader = rig.replicas[1]
        for (what, bytes) in Self.forged + [("another's command", Self.record(origin: 2))] {
            var header = [UInt8](repeating: 0, count: PeerHeader.size)
            header.withUnsafeMutableBytes {
                PeerFrame.encodeForwardHeader(
                    count: bytes.count, checksum: Self.checksum(bytes), view: 1, sender: 0, into: $0.baseAddress!)
            }
            let before = leader.board.peers[0].framesMalformed.load()
            leader.arrived(header + bytes, from: 0)
            rig.run(for: 100_000)
            #expect(leader.board.peers[0].framesMalformed.load() == before + 1, "\(what)")
        }
        #expect(leader.board.batchesProposed.load() == 0)
    }
}
