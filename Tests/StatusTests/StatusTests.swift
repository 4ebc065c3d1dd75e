import Foundation
import Logging
import MPaxosCSupport
import MPaxosTopology
import Testing

@testable import MPaxosMetrics
@testable import MPaxosStatus

@Suite struct StatusBoardTests {
    @Test func leaderAndRole() {
        let board = StatusBoard(members: [3, 5, 9])
        #expect(board.knownLeader == nil)
        #expect(board.role == .recovering)
        #expect(!board.isReady)
        board.knownLeader = 0
        board.role = .candidate
        board.isReady = true
        #expect(board.knownLeader == 0)
        #expect(board.role == .candidate)
        #expect(board.isReady)
        board.knownLeader = nil
        #expect(board.knownLeader == nil)
    }

    /// Position and value of the digest belong together, whenever they are read.
    @Test func digestIsNeverTorn() {
        let board = StatusBoard(members: [0])
        let rounds: UInt64 = 200_000
        Thread.detachNewThread {
            for round in 1...rounds { board.digest = (round, round &* 3, ~round) }
        }
        var last: UInt64 = 0
        while last < rounds {
            guard let (position, executed, value) = board.digest else { continue }
            guard position >= last, position == 0 || (value == ~position && executed == position &* 3) else {
                Issue.record("position \(position) after \(last), executed \(executed), with value \(value)")
                return
            }
            last = position
        }
    }

    /// A lane that stands still, and a word of others that is old, make unready what was ready.
    @Test func readinessHasAnAge() {
        let board = StatusBoard(members: [0, 1, 2])
        let now: UInt64 = 10_000_000
        #expect(board.unreadiness(now: now) == "the cluster is not founded")
        board.isFounded = true
        #expect(board.unreadiness(now: now) == "no leader is known")
        board.knownLeader = 1
        #expect(board.unreadiness(now: now) == "it is catching up")
        board.isReady = true
        #expect(board.unreadiness(now: now) == nil)
        board.turn(of: "executor").store(now - 900_000)
        board.turn(of: "engine").store(now + 5)
        #expect(board.unreadiness(now: now) == nil)
        #expect(
            board.unreadiness(now: now + 200_000)
                == "its lane executor has stood still for 1.100 s, as when a disk does not answer")
        board.turn(of: "executor").store(now)
        board.isInTouch = false
        #expect(board.unreadiness(now: now) == "its leader has not been heard of late")
        board.role = .leader
        #expect(board.unreadiness(now: now) == "it leads, and no majority has answered it of late")
        board.isInTouch = true
        board.isReady = false
        board.isInDispute = true
        #expect(board.unreadiness(now: now) == "its state is in dispute")
    }

    @Test func largestCluster() {
        let board = StatusBoard(members: Array(0..<9))
        board.peers[8].framesLost.add(2)
        board.peers[8].framesLost.add(3)
        #expect(board.peers[8].framesLost.load() == 5)
        #expect(board.peers.dropLast().allSatisfy { $0.framesLost.load() == 0 })
    }
}

@Suite struct StatusReportTests {
    let board = StatusBoard(members: [2, 4, 7])

    var report: StatusReport {
        StatusReport(board: board, cluster: "a \"b\" \u{1}", id: 4, durability: "emulated", version: "0.1", started: 0)
    }

    private func object(_ report: StatusReport) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(report.json().utf8)) as? [String: Any])
    }

    @Test func keysAndValues() throws {
        board.role = .follower
        board.knownLeader = 2
        board.view.store(8)
        board.decided.store(11)
        board.executed.store(10)
        board.position.store(1 << 40)
        board.sessions.store(3)
        board.outstanding.store(4)
        board.rejectedMalformed.add(1)
        board.rejectedTooLarge.add(2)
        board.rejectedBusy.add(3)
        board.acceptorPoolUsed.store(5)
        board.acceptorPoolSize.store(6)
        board.statePoolUsed.store(7)
        board.statePoolSize.store(8)
        board.votesDroppedTorn.add(9)
        board.awaited = 0b101
        board.digest = (1 << 40, 1 << 30, 0xAB)
        let status = try object(report)
        #expect(
            status.keys.sorted() == [
                "acceptor_pool", "cluster", "decided", "denied", "digest", "durability", "executed", "founded", "id",
                "leader", "log_lines_dropped", "outstanding", "peers", "pid", "position", "ready", "rejected", "role",
                "security", "sessions",
                "state_pool", "uptime_s", "verification", "version", "view", "votes_dropped_torn", "waiting_for",
            ])
        #expect(status["id"] as? Int == 4)
        #expect(status["cluster"] as? String == "a \"b\" \u{1}")
        #expect(status["role"] as? String == "follower")
        #expect(status["view"] as? Int == 8)
        #expect(status["votes_dropped_torn"] as? Int == 9)
        #expect(status["founded"] as? Bool == false)
        #expect(status["waiting_for"] as? [Int] == [board.peers[0].id, board.peers[2].id].map(Int.init))
        #expect(status["leader"] as? Int == 7)
        #expect(status["decided"] as? Int == 11)
        #expect(status["executed"] as? Int == 10)
        #expect(status["position"] as? Int == 1 << 40)
        #expect(status["sessions"] as? Int == 3)
        #expect(status["outstanding"] as? Int == 4)
        #expect(status["rejected"] as? [String: Int] == ["malformed": 1, "too_large": 2, "busy": 3])
        #expect(status["acceptor_pool"] as? [String: Int] == ["used": 5, "size": 6])
        #expect(status["state_pool"] as? [String: Int] == ["used": 7, "size": 8])
        #expect(status["durability"] as? String == "emulated")
        #expect(status["version"] as? String == "0.1")
        #expect(status["pid"] as? Int == Int(getpid()))
        #expect((status["uptime_s"] as? Double ?? 0) > 0)
        let digest = try #require(status["digest"] as? [String: Any])
        #expect(digest["position"] as? Int == 1 << 40)
        #expect(digest["executed"] as? Int == 1 << 30)
        #expect(digest["value"] as? String == "00000000000000ab")
    }

    @Test func verification() throws {
        let before = try #require(try object(report)["verification"] as? [String: Any])
        #expect(before["passes"] as? Int == 0 && before["age_s"] is NSNull)
        board.statePasses.add(2)
        board.statePassedAt.store(csupport_monotonic_us() - 1_500_000)
        let after = try #require(try object(report)["verification"] as? [String: Any])
        let age = try #require(after["age_s"] as? Double)
        #expect(after["passes"] as? Int == 2 && age >= 1.5 && age < 60)
    }

    /// A digest that is not computed yet is none, and not zeros, which it might be. At position 0 it is one like any
    /// other.
    @Test func digestBeforeItIsComputed() throws {
        let before = try #require(try object(report)["digest"] as? [String: Any])
        #expect(before["position"] is NSNull && before["value"] is NSNull)
        #expect(board.digest == nil)
        board.digest = (0, 0, 0xAB)
        let after = try #require(try object(report)["digest"] as? [String: Any])
        #expect(after["position"] as? Int == 0)
        #expect(after["value"] as? String == "00000000000000ab")
        board.digest = nil
        #expect(board.digest == nil)
    }

    /// The other replicas, without this one.
    @Test func peers() throws {
        let first = board.peers[0]
        first.connected.store(1)
        first.roundTrip.store(1234)
        first.window.store(5)
        first.underWay.store(6)
        first.queued.store(7)
        first.resent.store(8)
        first.behind.store(9)
        first.refusal.set("it says \"no\"")
        // Of this replica itself nothing is shown, whatever stands there.
        board.peers[1].window.store(99)
        let peers = try #require(try object(report)["peers"] as? [[String: Any]])
        try #require(peers.count == 2)
        for peer in peers {
            #expect(
                peer.keys.sorted() == [
                    "behind", "connected", "id", "queued", "refusal", "resent", "round_trip_us", "under_way", "window",
                ])
        }
        #expect(peers[0]["id"] as? Int == 2)
        #expect(peers[0]["connected"] as? Bool == true)
        #expect(peers[0]["round_trip_us"] as? Int == 1234)
        #expect(peers[0]["window"] as? Int == 5)
        #expect(peers[0]["under_way"] as? Int == 6)
        #expect(peers[0]["queued"] as? Int == 7)
        #expect(peers[0]["resent"] as? Int == 8)
        #expect(peers[0]["behind"] as? Int == 9)
        #expect(peers[0]["refusal"] as? String == "it says \"no\"")
        #expect(peers[1]["refusal"] is NSNull, "nobody refuses it")
        #expect(peers[1]["id"] as? Int == 7)
        #expect(peers[1]["connected"] as? Bool == false)
        #expect(peers[1]["round_trip_us"] is NSNull, "not known before it was measured")
    }

    /// Each of the families of a peer shows the cell of its name.
    @Test func metricsOfPeers() {
        let peer = board.peers[2]
        let gauges = [
            ("connected", peer.connected), ("round_trip_us", peer.roundTrip), ("window_bytes", peer.window),
            ("under_way_bytes", peer.underWay), ("queued_bytes", peer.queued), ("behind_instances", peer.behind),
        ]
        let counters = [
            ("frames_sent_total", peer.framesSent), ("frames_received_total", peer.framesReceived),
            ("frames_lost_total", peer.framesLost), ("frames_malformed_total", peer.framesMalformed),
            ("bytes_sent_total", peer.bytesSent), ("frames_implausible_total", peer.framesImplausible),
            ("proposals_resent_total", peer.resent),
        ]
        for (place, (_, gauge)) in gauges.enumerated() { gauge.store(UInt64(100 + place)) }
        for (place, (_, counter)) in counters.enumerated() { counter.add(UInt64(200 + place)) }
        let lines = report.prometheus().split(separator: "\n")
        for (first, names, kind) in [(100, gauges.map(\.0), "gauge"), (200, counters.map(\.0), "counter")] {
            for (place, name) in names.enumerated() {
                #expect(lines.contains("# TYPE mpaxos_peer_\(name) \(kind)"), "\(name)")
                #expect(lines.contains("mpaxos_peer_\(name){peer=\"7\"} \(first + place)"), "\(name)")
                #expect(lines.contains("mpaxos_peer_\(name){peer=\"2\"} 0"), "\(name)")
            }
        }
    }

    @Test func noLeader() throws {
        #expect(try object(report)["leader"] is NSNull)
    }

    /// Every line is a comment or a sample of a family announced before, each family in one piece.
    @Test func metricsAreWellFormed() throws {
        board.peers[2].framesLost.add(9)
        board.knownLeader = 0
        let lines = report.prometheus().split(separator: "\n")
        var families: [String] = []
        var samples: [String: String] = [:]
        for line in lines {
            if line.hasPrefix("# TYPE ") {
                let words = line.split(separator: " ")
                try #require(words.count == 4)
                #expect(["counter", "gauge"].contains(words[3]))
                #expect(words[3] != "counter" || words[2].hasSuffix("_total"), "\(line)")
                families.append(String(words[2]))
            } else if line.hasPrefix("# HELP ") {
                #expect(line.split(separator: " ", maxSplits: 3).count == 4, "no help: \(line)")
            } else {
                let end = try #require(line.lastIndex(of: " "))
                let series = String(line[..<end])
                let name = String(series.prefix { $0 != "{" })
                #expect(name == families.last, "\(line) is out of its family")
                #expect(Double(line[line.index(after: end)...]) != nil, "\(line)")
                #expect(
                    samples.updateValue(String(line[line.index(after: end)...]), forKey: series) == nil,
                    "\(series) twice")
            }
        }
        #expect(Set(families).count == families.count)
        #expect(samples["mpaxos_peer_frames_lost_total{peer=\"7\"}"] == "9")
        #expect(samples["mpaxos_peer_frames_lost_total{peer=\"2\"}"] == "0")
        #expect(samples["mpaxos_leader"] == "2")
        #expect(samples["mpaxos_role{role=\"recovering\"}"] == "1")
        #expect(
            samples["mpaxos_info{cluster=\"a \\\"b\\\" \u{1}\",id=\"4\",version=\"0.1\",durability=\"emulated\"}"]
                == "1")
    }

    @Test(arguments: [(0, "0.000"), (7, "0.007"), (1234, "1.234"), (60_050, "60.050")])
    func thousandths(milliseconds: UInt64, text: String) {
        #expect(StatusReport.thousandths(milliseconds) == text)
    }
}

@Suite struct StatusServerTests {
    @Test func serves() async throws {
        let board = StatusBoard(members: [0])
        let report = StatusReport(
            board: board, cluster: "c", id: 0, durability: "msync", version: "0", started: 0)
        let limits = try limits()
        let server = try StatusServer(
            address: Address(host: "localhost", port: 0), limits: limits, report: report, secrets: HTTPSecrets(nil),
            logger: Logger(label: "test"))
        let port = try await port(of: server)

        let unready = try get("/healthz", port: port)
        #expect(unready.hasPrefix("HTTP/1.1 503"), "\(unready)")
        #expect(unready.hasSuffix("\r\n\r\nnot ready: the cluster is not founded\n"), "\(unready)")
        board.isReady = true
        let ready = try get("/healthz", port: port)
        #expect(ready.hasPrefix("HTTP/1.1 200"), "\(ready)")

        let status = try get("/status", port: port)
        #expect(status.hasPrefix("HTTP/1.1 200") && status.contains("application/json"), "\(status)")
        #expect(status.contains("\"cluster\":\"c\""), "\(status)")
        let metrics = try get("/metrics", port: port)
        #expect(metrics.contains("\nmpaxos_ready 1\n"), "\(metrics)")
        let unknown = try get("/nothing", port: port)
        #expect(unknown.hasPrefix("HTTP/1.1 404"), "\(unknown)")

        server.stop()
        #expect(throws: HTTPProbe.ConnectionRefused.self) { try get("/healthz", port: port) }
    }

    private func limits() throws -> Topology.Limits {
        let text =
            "name = \"c\"\n[[replica]]\nid = 0\npeer = \"tcp://127.0.0.1:7100\"\nclient = \"tcp://127.0.0.1:7200\"\n"
        return try Topology(parsing: Array(text.utf8), file: "status.toml").limits
    }

    private func port(of server: StatusServer) async throws -> UInt16 {
        let end = ContinuousClock.now + .seconds(20)
        while server.listeningPort == nil, .now < end { try await Task.sleep(for: .milliseconds(5)) }
        return try #require(server.listeningPort)
    }

    /// What takes the address away is said once, and tried again.
    @Test func addressThatCannotBeHad() async throws {
        let report = StatusReport(
            board: StatusBoard(members: [0]), cluster: "c", id: 0, durability: "msync", version: "0", started: 0)
        let limits = try limits()
        let first = try StatusServer(
            address: Address(host: "127.0.0.1", port: 0), limits: limits, report: report, secrets: HTTPSecrets(nil),
            logger: Logger(label: "test"))
        let port = try await port(of: first)
        let said = Said()
        let second = try StatusServer(
            address: Address(host: "127.0.0.1", port: port), limits: limits, report: report, secrets: HTTPSecrets(nil),
            logger: said.logger)
        let lost = try StatusServer(
            address: Address(host: "no-such-host.invalid", port: 1), limits: limits, report: report,
            secrets: HTTPSecrets(nil), logger: said.logger)
        #expect(await said.awaits("no HTTP at 127.0.0.1:\(port): Address already in use"))
        #expect(await said.awaits("no HTTP at no-such-host.invalid:1: its host is unknown"))
        first.stop()
        #expect(await said.awaits("HTTP at 127.0.0.1:\(port): it listens now"))
        #expect(try get("/healthz", port: port).hasPrefix("HTTP/1.1 503"))
        #expect(said.count(of: "Address already in use") == 1)
        second.stop()
        lost.stop()
    }

    private func get(_ path: String, port: UInt16) throws -> String { try HTTPProbe.get(path, port: port) }
}
