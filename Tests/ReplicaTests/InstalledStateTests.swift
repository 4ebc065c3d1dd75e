import Dispatch
import Foundation
import Logging
import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosStateMachines
import MPaxosStorage
import MPaxosTopology
import MPaxosWire
import Testing

@testable import MPaxosMetrics
@testable import MPaxosPipeline
@testable import MPaxosReplica
@testable import MPaxosStatus

/// The log of a replica, beside a state that came from another one.
@Suite struct InstalledStateTests {
    private let folder = FileManager.default.temporaryDirectory.appending(
        path: "mpaxos-installed-\(UInt32.random(in: 0...UInt32.max))")
    private let topology: Topology
    private let charter: Charter
    private var member: Topology.Member { topology.replicas[0] }

    init() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        var text = "name = \"installed\"\n"
        for id in 0..<3 {
            text += """
                [[replica]]
                id = \(id)
                peer = "ipc://\(folder.path)/p\(id)"
                client = "ipc://\(folder.path)/c\(id)"

                """
        }
        text += """
            [storage]
            directory = "\(folder.path)"
            log_size = "8MiB"
            state_size = "32MiB"
            [client]
            sessions = 64
            """
        let file = folder.appending(path: "installed.toml")
        try Data(text.utf8).write(to: file)
        topology = try Topology(contentsOf: file.path)
        charter = try Charter(of: topology, for: KeyValueService.self)
        for member in topology.replicas { try ReplicaPools.format(topology, id: member.id, for: KeyValueService.self) }
    }

    /// Executes instances without commands.
    private func execute(_ instances: UInt64, in member: Topology.Member) throws {
        let pool = try StatePool(openingAny: member.statePool)
        for _ in 0..<instances { pool.endInstance(pool.executed + 1) }
        pool.close()
    }

    private func vote(_ instances: ClosedRange<UInt64>, in view: UInt64) throws {
        let pool = try AcceptorPool(opening: member.acceptorPool, expecting: topology.name, replica: 0)
        pool.record(promise: view)
        for instance in instances {
            let size = CommandRecord.size(bodyCount: 0)
            CommandRecord.write(
                into: try #require(pool.reserve(size)), kind: .open, origin: 0, tag: instance &* view, session: 0,
                sequence: 0, body: UnsafeRawBufferPointer(start: nil, count: 0))
            pool.record(instance: instance, view: view, batch: pool.seal(size))
        }
        pool.close()
    }

    /// Replica 1's state for replica 0, all but the rename.
    private func transfer() throws -> IncomingSnapshot {
        let theirs = try StatePool(openingAny: topology.replicas[1].statePool)
        let ours = try StatePool(openingAny: member.statePool)
        defer {
            theirs.close()
            ours.close()
        }
        let snapshot = try StateSnapshot(of: theirs)
        while !snapshot.isWhole { try snapshot.copy(atMost: 1 << 20) }
        let incoming = try IncomingSnapshot(beside: member.statePool, geometry: ours.geometry)
        try #require(incoming.expect(size: snapshot.size, checksum: snapshot.checksum, executed: snapshot.executed))
        var bytes = [UInt8](repeating: 0, count: snapshot.size)
        try #require(bytes.withUnsafeMutableBytes { snapshot.read(at: 0, into: $0) })
        bytes.withUnsafeBytes { incoming.append($0) }
        try incoming.finish(as: ours.identity, bootCount: 0)
        return incoming
    }

    /// What it voted for below the end of the snapshot may be another value than the one that was chosen: it must not
    /// pass for decided. What it voted for above it, and its promise, stay.
    @Test func votesForWhatIsPartOfTheStateAreGivenUp() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try execute(4, in: member)
        try execute(8, in: topology.replicas[1])
        try vote(1...12, in: 7)
        try transfer().install(over: member.statePool)
        // Twice: also when it is killed as soon as it has opened its pools.
        for _ in 0..<2 {
            let pools = try Pools(topology: topology, member: member, charter: charter)
            var effects = EffectBuffer()
            var core = pools.recovered.core(
                Configuration(
                    replica: 0, replicaCount: 3, window: topology.protocol.window,
                    slotCount: pools.recovered.acceptor.slotCount, seed: 1))
            core.start(now: 0, into: &effects)
            let (decided, floor, view) = (core.decided, core.floor, core.view)
            #expect(pools.recovered.state.executed == 8 && decided == 8)
            #expect(pools.recovered.acceptor.floor == 9 && floor == 9)
            for instance in 1...12 as ClosedRange<UInt64> {
                let found = core.entry(at: instance)
                if instance <= 8 {
                    #expect(found == nil, "\(instance)")
                    continue
                }
                let entry = try #require(found)
                #expect(entry.view == 7 && !entry.isDecided)
                let bytes = pools.recovered.acceptor.bytes(of: entry.batch)
                let tag = bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
                #expect(tag == instance &* 7)
            }
            #expect(view == 7 && pools.recovered.acceptor.promised == 7)
            pools.recovered.state.close()
            pools.recovered.acceptor.close()
        }
    }

    /// A snapshot that lies far above all that the log has room for.
    @Test func aStateFarAboveTheLog() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try execute(4, in: member)
        try execute(100_000, in: topology.replicas[1])
        try vote(1...12, in: 7)
        try transfer().install(over: member.statePool)
        let pools = try Pools(topology: topology, member: member, charter: charter)
        let acceptor = pools.recovered.acceptor
        #expect(acceptor.floor == 100_001 && acceptor.used == 0 && acceptor.promised == 7)
        #expect(acceptor.hasSlot(for: 100_001) && acceptor.reserve(1 << 20) != nil)
        pools.recovered.state.close()
        pools.recovered.acceptor.close()
    }

    /// What is decided in a state counts as accepted in the view promised, so that one must not be lower than the
    /// giver's.
    @Test(arguments: [3, 7, 9] as [UInt64]) func thePromiseRisesToThatOfTheGiver(view: UInt64) throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try vote(1...1, in: 7)
        let life = try ReplicaLife<KeyValueService>(
            in: .init(
                topology: topology, index: 0, keys: nil, board: StatusBoard(members: [0, 1, 2]), alarm: Alarm {},
                logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), ring: {}),
            skipping: [],
            report: {
                StatusReport(
                    board: StatusBoard(members: [0]), cluster: "", id: 0, durability: $0.rawValue, version: "",
                    started: 0)
            })
        life.start()
        life.end(promising: view)
        let pool = try AcceptorPool(opening: member.acceptorPool, expecting: topology.name, replica: 0)
        #expect(pool.promised == max(7, view))
        pool.close()
    }

    @Test func withoutTheRenameNothingHasHappened() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try execute(4, in: member)
        try execute(8, in: topology.replicas[1])
        try vote(1...12, in: 7)
        let incoming = try transfer()
        let pools = try Pools(topology: topology, member: member, charter: charter)
        #expect(pools.recovered.state.executed == 4 && pools.recovered.acceptor.floor == 1)
        #expect(!FileManager.default.fileExists(atPath: incoming.path))
        pools.recovered.state.close()
        pools.recovered.acceptor.close()
    }
}
