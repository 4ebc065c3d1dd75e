import MPaxosCSupport
import MPaxosPersistentMemory
import MPaxosTopology
import Testing

@testable import MPaxosMetrics
@testable import MPaxosReplica

@Suite struct LanePlanTests {
    /// Lanes of one of nine replicas on this host, and whether the executor has another than engine, links and gateway.
    private func plan(threads: String, durability: Durability) throws -> (lanes: Int, isApart: Bool, hasGate: Bool) {
        var text = "name = \"c\"\n"
        for id in 0..<9 {
            text += "[[replica]]\nid = \(id)\n"
            text += "peer = \"tcp://127.0.0.1:\(7100 + id)\"\nclient = \"tcp://127.0.0.1:\(7200 + id)\"\n"
        }
        text += "[pipeline]\nthreads = \"\(threads)\"\n"
        let topology = try Topology(parsing: Array(text.utf8), file: "lanes.toml")
        let plan = try LanePlan(
            topology: topology, index: 4, durability: durability, board: StatusBoard(members: Array(0..<9)))
        defer {
            for lane in plan.lanes { lane.parker.deallocate() }
            plan.gate?.deallocate()
        }
        let executor = plan.parkers.executor.fileDescriptor
        let others = [plan.parkers.engine, plan.parkers.links, plan.parkers.gateway].map(\.fileDescriptor)
        // Whoever publishes for a stage wakes a lane of the plan.
        let lanes = Set(plan.lanes.map(\.parker.fileDescriptor))
        #expect(lanes.isSuperset(of: others + [executor]))
        return (plan.lanes.count, !others.contains(executor), plan.gate != nil)
    }

    @Test(arguments: [Durability.pmem, .emulated, .msync]) func asAskedFor(durability: Durability) throws {
        #expect(try plan(threads: "fused", durability: durability) == (1, false, true))
        #expect(try plan(threads: "staged", durability: durability) == (4, true, false))
    }

    /// Where cores are few, the executor waits for a disk on a lane of its own.
    @Test(arguments: [(Durability.pmem, 1), (.emulated, 1), (.msync, 2)])
    func byItself(durability: Durability, lanes: Int) throws {
        let isCrowded = csupport_usable_cores() < 9 * 4
        let found = try plan(threads: "auto", durability: durability)
        #expect(found == (isCrowded ? (lanes, lanes == 2, true) : (4, true, false)))
    }
}
