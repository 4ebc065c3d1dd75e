import Foundation
import MPaxosPersistentMemory
import MPaxosReplica
import MPaxosStateMachines
import MPaxosTopology
import Testing

/// Which program and which topology may open pools, and which replicas link: as a user of the library meets it.
@Suite(.serialized) struct CharterNodeTests {
    private struct First: Silent {
        static let name = "silent"
        init(in transaction: Transaction) {}
    }
    private struct Second: Silent {
        static let name = "silent"
        static let version = 2
        init(in transaction: Transaction) {}
    }
    private struct Renamed: Silent {
        static let name = "still"
        init(in transaction: Transaction) {}
    }
    private struct Nameless: Silent {
        static let name = ""
        init(in transaction: Transaction) {}
    }

    private func expectRefusal(saying words: String..., of body: () throws(ReplicaError) -> Void) {
        do {
            try body()
            Issue.record("not refused")
        } catch {
            guard case .refused = error.kind else {
                Issue.record("\(error)")
                return
            }
            for word in words { #expect(error.description.contains(word), "\(error)") }
        }
    }

    @Test func namesAndVersionsByDefaultAndByChoice() {
        #expect(KeyValueService.name == "KeyValueService")
        #expect((ReplicatedCounter.name, ReplicatedCounter.version) == ("ReplicatedCounter", 1))
        #expect((Second.name, Second.version) == ("silent", 2))
    }

    @Test func poolsOpenUnderTheMachineTheyWereFormattedForAlone() throws {
        let cluster = try NodeCluster()
        let state = cluster.topology.replicas[0].statePool
        try cluster.format(0, for: KeyValueService.self)
        let before = try Data(contentsOf: URL(filePath: state))
        for _ in 0..<2 {
            expectRefusal(
                saying: "acceptor.pool", "'KeyValueService' version 1", "'ReplicatedCounter' version 1",
                "run the program"
            ) { () throws(ReplicaError) in try cluster.open(0, as: ReplicatedCounter.self) }
        }
        #expect(try Data(contentsOf: URL(filePath: state)) == before, "nothing was written into them")
        try cluster.open(0, as: KeyValueService.self)

        try cluster.format(1, for: First.self)
        expectRefusal(saying: "'silent' version 1", "'silent' version 2") { () throws(ReplicaError) in
            try cluster.open(1, as: Second.self)
        }
        expectRefusal(saying: "'silent' version 1", "'still' version 1") { () throws(ReplicaError) in
            try cluster.open(1, as: Renamed.self)
        }
        try cluster.open(1, as: First.self)
    }

    /// The acceptor pool of one format beside the state pool of another.
    @Test func poolsOfTwoFormatsAreRefused() throws {
        let cluster = try NodeCluster()
        let member = cluster.topology.replicas[0]
        try cluster.format(0, for: First.self)
        try FileManager.default.moveItem(atPath: member.acceptorPool, toPath: member.acceptorPool + ".kept")
        try FileManager.default.removeItem(atPath: member.statePool)
        try cluster.format(0, for: Second.self)
        try FileManager.default.removeItem(atPath: member.acceptorPool)
        try FileManager.default.moveItem(atPath: member.acceptorPool + ".kept", toPath: member.acceptorPool)
        expectRefusal(saying: member.statePool, "version 2", "version 1") { () throws(ReplicaError) in
            try cluster.open(0, as: First.self)
        }
        expectRefusal(saying: member.acceptorPool, "version 1", "version 2") { () throws(ReplicaError) in
            try cluster.open(0, as: Second.self)
        }
    }

    @Test func aTopologyWithOtherSizesIsRefused() throws {
        let cluster = try NodeCluster()
        try cluster.format(0, for: First.self)
        let edited = try NodeCluster.topology(in: cluster.folder, maxRequest: "64KiB")
        expectRefusal(saying: "max_request = 1 MiB", "max_request = 64 KiB") { () throws(ReplicaError) in
            try cluster.open(0, as: First.self, under: edited)
        }
        try cluster.open(0, as: First.self)
    }

    @Test func aMachineWithoutANameIsRefused() throws {
        let cluster = try NodeCluster()
        #expect(throws: ReplicaError.self) { try cluster.format(0, for: Nameless.self) }
        #expect(!FileManager.default.fileExists(atPath: cluster.topology.replicas[0].folder))
    }

    /// One replica of another version than the two others: they serve, it does not, and both say why.
    @Test func twoVersionsOfAMachineDoNotLink() async throws {
        let cluster = try NodeCluster()
        for id in 0..<3 as Range<UInt16> {
            if id == 1 {
                try cluster.format(id, for: Second.self)
                try cluster.start(id, as: Second.self)
            } else {
                try cluster.format(id, for: First.self)
                try cluster.start(id, as: First.self)
            }
        }
        defer { cluster.stop() }
        let words = ["replica 1 has machine = 'silent' version 2", "has machine = 'silent' version 1"]
        for id in 0..<3 {
            let told = try cluster.refusals(of: id, count: id == 1 ? 2 : 1)
            #expect(told.keys.sorted() == (id == 1 ? [0, 2] : [1]))
            for refusal in told.values { for word in words { #expect(refusal.contains(word), "\(refusal)") } }
        }
    }
}

/// A machine that answers nothing.
private protocol Silent: StateMachine {}

extension Silent {
    static func validate(_ body: UnsafeRawBufferPointer, as kind: CommandKind) -> String? { nil }
    func apply(_ command: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {}
    func query(_ query: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {}
}
