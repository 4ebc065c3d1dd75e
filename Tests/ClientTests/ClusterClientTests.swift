import Foundation
import MPaxosClient
import MPaxosWire
import Testing

/// Quick attempts, ample time altogether.
private let quick = ClientOptions(timeout: .seconds(30), attempt: .milliseconds(100))

@Suite struct ClusterClientTests {
    @Test func opensSubmitsAndCloses() throws {
        let replica = try FakeReplica { request, _ in
            switch request.header.code {
            case .open: .opened(5)
            case .submit: .ok([UInt8(request.header.sequence)] + request.body, position: request.header.sequence)
            case .close: .ok()
            default: nil
            }
        }
        defer { replica.stop() }
        let client = try ClusterClient(endpoints: [replica.endpoint], options: patient)
        let session = try client.open()
        #expect(session == 5)
        #expect(try client.submit([8], session: session).body == [1, 8])
        #expect(try client.submit([9], session: session).body == [2, 9])
        try client.close(session: session)
        let requests = replica.requests
        #expect(requests.map(\.header.code) == [.open, .submit, .submit, .close])
        #expect(requests.map(\.header.session) == [0, 5, 5, 5])
        #expect(requests[1].header.sequence == 1 && requests[2].header.sequence == 2)
    }

    @Test func busyAndNoLeaderAreRetriedUnderTheSameNumber() throws {
        let replica = try FakeReplica { request, index in
            if request.header.code == .open { return .opened(9) }
            return switch index {
            case 1: .busy(milliseconds: 1)
            case 2: .noLeader(milliseconds: 1)
            case 3: .busy(milliseconds: 1)
            default: .ok([4])
            }
        }
        defer { replica.stop() }
        let client = try ClusterClient(endpoints: [replica.endpoint], options: patient)
        let session = try client.open()
        #expect(try client.submit([1], session: session).body == [4])
        #expect(replica.requests.count == 5)
        #expect(replica.requests.dropFirst().allSatisfy { $0 == replica.requests[1] })
    }

    @Test func silenceSendsTheRequestToTheNextReplica() throws {
        let silent = try FakeReplica(id: 0) { _, _ in nil }
        let lively = try FakeReplica(id: 1) { request, _ in
            request.header.code == .open ? .opened(3) : .ok(request.body)
        }
        defer {
            silent.stop()
            lively.stop()
        }
        let client = try ClusterClient(endpoints: [silent.endpoint, lively.endpoint], options: quick)
        let reply = try client.submit([6])
        #expect(reply.body == [6] && reply.header.replica == 1)
        let lost = silent.requests
        #expect(lost.count <= 1)
        if let first = lost.first { #expect(lively.requests.first == first) }
        // It stays with the one that answered.
        let asked = silent.requests.count
        for _ in 0..<5 { #expect(try client.submit([7]).header.replica == 1) }
        #expect(silent.requests.count == asked)
    }

    @Test func deadReplicasArePassedOver() throws {
        let replica = try FakeReplica { request, _ in .ok(request.body) }
        defer { replica.stop() }
        let client = try ClusterClient(endpoints: [deadEndpoint(), deadEndpoint(), replica.endpoint], options: patient)
        #expect(try client.query([1]).body == [1])
    }

    @Test func redirectsAreFollowedEvenToUnknownReplicas() throws {
        let leader = try FakeReplica(id: 1) { request, _ in .ok(request.body) }
        let follower = try FakeReplica(id: 0) { _, _ in .redirect(to: leader.endpoint) }
        defer {
            leader.stop()
            follower.stop()
        }
        let client = try ClusterClient(endpoints: [follower.endpoint], options: patient)
        #expect(try client.submit([2]).header.replica == 1)
        #expect(follower.requests == leader.requests)
        // The next goes there by itself.
        #expect(try client.submit([3]).header.replica == 1)
        #expect(follower.requests.count == 1 && leader.requests.count == 2)
    }

    @Test func aRedirectToNonsenseIsRetried() throws {
        let replica = try FakeReplica { request, index in
            index == 0 ? .redirect(to: "nonsense") : index == 1 ? .redirect(to: "") : .ok(request.body)
        }
        defer { replica.stop() }
        #expect(try ClusterClient(endpoints: [replica.endpoint], options: patient).submit([2]).body == [2])
    }

    @Test func timeIsUpSaysWhoFailedHow() throws {
        let silent = try FakeReplica { _, _ in nil }
        defer { silent.stop() }
        let options = ClientOptions(timeout: .milliseconds(300), attempt: .milliseconds(50))
        let error = #expect(throws: ClientError.self) {
            try ClusterClient(endpoints: [silent.endpoint], options: options).submit([1])
        }
        guard case .unanswered(let reason, uncertain: true)? = error else {
            Issue.record("unexpected: \(String(describing: error))")
            return
        }
        #expect(reason.contains(silent.endpoint))
        #expect(silent.requests.count > 1)
        #expect(silent.requests.allSatisfy { $0 == silent.requests[0] })

        let absent = #expect(throws: ClientError.self) {
            try ClusterClient(endpoints: [deadEndpoint()], options: options).submit([1])
        }
        #expect(absent == .unanswered(reason: "no replica takes a connection", uncertain: false))

        // Never admitted: surely not executed.
        let busy = try FakeReplica { _, _ in .busy(milliseconds: 5) }
        defer { busy.stop() }
        let refused = #expect(throws: ClientError.self) {
            try ClusterClient(endpoints: [busy.endpoint], options: options).submit([1])
        }
        guard case .unanswered(let reason, uncertain: _)? = refused else {
            Issue.record("unexpected: \(String(describing: refused))")
            return
        }
        #expect(reason.contains(busy.endpoint))
    }

    @Test(arguments: [
        (FakeReplica.Answer(status: .expired), ClientError.sessionExpired(session: 4, uncertain: false)),
        (FakeReplica.Answer(status: .stale), .stale(session: 4, sequence: 1)),
        (FakeReplica.Answer(status: .malformed, body: [UInt8]("no".utf8)), .malformed("no")),
        (FakeReplica.Answer(status: .tooLarge, body: [0, 0, 0, 0]), .tooLarge(limit: 0)),
        (FakeReplica.Answer(status: .denied, body: [110, 111]), .denied("no")),
        (FakeReplica.Answer(status: .full, body: [UInt8]("limit".utf8)), .full("limit")),
    ])
    func finalRefusalsAreNotRetried(answer: FakeReplica.Answer, error: ClientError) throws {
        let replica = try FakeReplica { _, _ in answer }
        defer { replica.stop() }
        let client = try ClusterClient(endpoints: [replica.endpoint], options: patient)
        #expect(throws: error) { try client.submit([1], session: 4) }
        #expect(replica.requests.count == 1)
        #expect("\(error)".count > 20)
    }

    /// TOO_LARGE carries a number alone: whether it is about the request or about the reply, the request's own size
    /// tells.
    @Test func tooLargeIsSaidOfWhatIsTooLarge() throws {
        let replica = try FakeReplica { _, _ in FakeReplica.Answer(status: .tooLarge, body: [0, 1, 0, 0]) }
        defer { replica.stop() }
        let client = try ClusterClient(endpoints: [replica.endpoint], options: patient)
        let reply = #expect(throws: ClientError.replyTooLarge(limit: 256)) { try client.query([1]) }
        #expect(reply?.description.contains("the reply would be larger than the 256 bytes") == true)
        #expect(throws: ClientError.replyTooLarge(limit: 256)) {
            try client.query(Array(repeating: 0, count: 256), local: true)
        }
        let request = #expect(throws: ClientError.tooLarge(limit: 256)) {
            try client.query(Array(repeating: 0, count: 257))
        }
        #expect(request?.description.contains("the request is larger than the 256 bytes") == true)
        #expect(throws: ClientError.tooLarge(limit: 256)) { try client.submit(Array(repeating: 0, count: 300)) }
    }

    /// Only where there is no room does it help to delete something.
    @Test(arguments: [
        (
            "the store is full",
            "the command was refused, nothing was changed: the store is full; delete something first"
        ),
        ("the reply is too large", "the command was refused, nothing was changed: the reply is too large"),
        ("too large for a commit", "the command was refused, nothing was changed: too large for a commit"),
    ])
    func fullSaysWhy(reason: String, sentence: String) {
        #expect(ClientError.full(reason).description == sentence)
    }

    /// EXPIRED after an attempt that may have been executed: the outcome is lost, and must not be taken for "not
    /// executed".
    @Test func expiredAfterAnUncertainAttemptIsSaid() throws {
        let replica = try FakeReplica { _, index in
            index == 0 ? .noLeader(milliseconds: 1) : FakeReplica.Answer(status: .expired)
        }
        defer { replica.stop() }
        let client = try ClusterClient(endpoints: [replica.endpoint], options: patient)
        #expect(throws: ClientError.sessionExpired(session: 4, uncertain: true)) { try client.submit([1], session: 4) }
        // Admitted nowhere: certain.
        let other = try FakeReplica { _, index in
            index == 0 ? .busy(milliseconds: 1) : FakeReplica.Answer(status: .expired)
        }
        defer { other.stop() }
        let another = try ClusterClient(endpoints: [other.endpoint], options: patient)
        #expect(throws: ClientError.sessionExpired(session: 4, uncertain: false)) {
            try another.submit([1], session: 4)
        }
        // A CLOSE finds what it wanted.
        try another.close(session: 4)
    }

    @Test func localQueriesNameTheirPosition() throws {
        let replica = try FakeReplica { request, index in index == 0 ? .busy(milliseconds: 1) : .ok([1], position: 30) }
        defer { replica.stop() }
        let client = try ClusterClient(endpoints: [replica.endpoint], options: patient)
        #expect(try client.query([5], local: true, position: 20).header.position == 30)
        #expect(
            replica.requests.allSatisfy {
                $0.header.flags == .local && $0.header.position == 20 && $0.header.session == 0
            })
    }

    @Test func performsKeyValueOperations() throws {
        let replica = try FakeReplica { request, _ in
            switch request.header.code {
            case .open: return .opened(6)
            case .close: return .ok()
            case .query: return .ok([1] + [UInt8]("there".utf8))
            case .submit:
                return request.body[0] == UInt8(ascii: "I") ? .ok([2] + [UInt8]("not a number".utf8)) : .ok([0])
            default: return nil
            }
        }
        defer { replica.stop() }
        let client = try ClusterClient(endpoints: [replica.endpoint], options: patient)
        #expect(try client.perform(.get(key: [1])) == .value([UInt8]("there".utf8)))
        #expect(try client.perform(.put(key: [1], value: [2])) == .absent)
        #expect(try client.perform(.add(key: [1], delta: 2)) == .refused("not a number"))
        #expect(replica.requests.map(\.header.code) == [.query, .open, .submit, .close, .open, .submit, .close])
    }
}
