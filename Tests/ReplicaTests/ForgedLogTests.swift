import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosStateMachines
import MPaxosStorage
import MPaxosTopology
import MPaxosWire
import Testing

@testable import MPaxosReplica

/// Batches in a log whose checksum is right and that are no commands.
@Suite struct ForgedLogTests {
    /// A log may hold one all the same, of an older program: a start says so, and does not fall over it.
    @Test func aStartRefusesOneThatIsNotExecuted() throws {
        var record = [UInt8](repeating: 0, count: CommandRecord.size(bodyCount: 3))
        record.withUnsafeMutableBytes { place in
            _ = ([1, 2, 3] as [UInt8]).withUnsafeBytes {
                CommandRecord.write(
                    into: place.baseAddress!, kind: .submit, origin: 2, tag: 5, session: 0, sequence: 0, body: $0)
            }
        }
        let cluster = try NodeCluster()
        let member = cluster.topology.replicas[0]
        let charter = try Charter(of: cluster.topology, for: KeyValueService.self)
        try cluster.format(0, for: KeyValueService.self)
        func vote(for instance: UInt64, _ bytes: [UInt8]) throws {
            let acceptor = try AcceptorPool(
                opening: member.acceptorPool, expecting: cluster.topology.name, replica: 0, charter: charter)
            let place = try #require(acceptor.reserve(bytes.count))
            bytes.withUnsafeBytes { place.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            acceptor.record(instance: instance, view: 1, batch: acceptor.seal(bytes.count, for: instance))
            acceptor.fence()
            acceptor.close()
        }
        func open() throws {
            let pools = try Pools(topology: cluster.topology, member: member, charter: charter)
            pools.recovered.acceptor.close()
            pools.recovered.state.close()
        }
        try vote(for: 1, record)
        try open()
        try vote(for: 2, [UInt8](repeating: 0xA5, count: 32))
        let error = #expect(throws: ReplicaError.self) { try open() }
        let text = error?.description ?? ""
        #expect(text.contains(member.acceptorPool), "\(text)")
        #expect(text.contains("the batch of instance 2, not executed yet, is no run of commands"), "\(text)")
    }
}
