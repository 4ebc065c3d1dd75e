import Foundation
import MPaxosConsensus
import MPaxosStateMachines
import MPaxosStorage
import MPaxosTopology
import Testing

@testable import MPaxosReplica

/// Each opening of a replica's pools is a life; one pool of another life than the other is refused.
@Suite struct LifeTests {
    private let cluster: NodeCluster
    private let charter: Charter
    private var member: Topology.Member { cluster.topology.replicas[0] }

    init() throws {
        cluster = try NodeCluster()
        charter = try Charter(of: cluster.topology, for: KeyValueService.self)
        try cluster.format(0, for: KeyValueService.self)
    }

    /// Opens and closes the pools.
    @discardableResult private func live() throws -> Life {
        let pools = try Pools(topology: cluster.topology, member: member, charter: charter)
        pools.recovered.state.close()
        pools.recovered.acceptor.close()
        return pools.recovered.life
    }

    private func copy(_ path: String, to copy: String) throws {
        try? FileManager.default.removeItem(atPath: copy)
        try FileManager.default.copyItem(atPath: path, toPath: copy)
    }

    @Test func everyOpeningIsANewLife() throws {
        let lives = try (0..<4).map { _ in try live() }
        #expect(lives.map(\.bootCount) == [1, 2, 3, 4])
        #expect(Set(lives.map(\.nonce)).count == 4 && lives.allSatisfy(\.isSound))
    }

    /// From the start before, and from the format.
    @Test(arguments: [0, 2], ["log", "state"])
    func onePoolOfAnEarlierTimeIsRefused(starts: Int, which: String) throws {
        let path = which == "log" ? member.acceptorPool : member.statePool
        for _ in 0..<starts { try live() }
        try copy(path, to: path + ".old")
        try live()
        try copy(path, to: path + ".new")
        try copy(path + ".old", to: path)
        for _ in 0..<2 {
            let error = #expect(throws: ReplicaError.self) { try live() }
            guard case .refused = error?.kind else { continue }
            let text = error?.description ?? ""
            let other = which == "log" ? "state" : "log"
            #expect(text.contains("the \(which) is older than the \(other)"), "\(text)")
            #expect(text.contains(" \(starts) times") && text.contains(" \(starts + 1) times"), "\(text)")
        }
        try copy(path + ".new", to: path)
        #expect(try live().bootCount == UInt64(starts) + 2)
    }

    /// Also when something starts it again and again.
    @Test func poolsThatWereExpelledStayOut() throws {
        try live()
        let acceptor = try AcceptorPool(
            opening: member.acceptorPool, expecting: cluster.topology.name, replica: 0, charter: charter)
        acceptor.expel()
        acceptor.close()
        for _ in 0..<2 {
            let error = #expect(throws: ReplicaError.self) { try live() }
            #expect(error?.description.contains("cannot be used any more") == true)
        }
    }

    /// A process that is killed in the middle of its start was met by nobody: the next one has its count.
    @Test(arguments: [false, true]) func aStartThatWasCutShortIsBegunAgain(stateWasWritten: Bool) throws {
        try live()
        let acceptor = try AcceptorPool(
            opening: member.acceptorPool, expecting: cluster.topology.name, replica: 0, charter: charter)
        acceptor.begin(start: 2)
        acceptor.close()
        if stateWasWritten {
            let state = try StatePool(openingAny: member.statePool)
            state.record(bootCount: 2)
            state.close()
        }
        #expect(try live().bootCount == 2)
        #expect(try live().bootCount == 3)
    }
}
