import Foundation
import MPaxosClient
import MPaxosWire
import Testing

@Suite struct ConnectionTests {
    @Test func asksAndIsAnswered() throws {
        let replica = try FakeReplica(id: 7) { request, _ in .ok(request.body + [9], position: 42) }
        defer { replica.stop() }
        let connection = try Connection(to: replica.endpoint)
        for number in 1...3 as ClosedRange<UInt64> {
            let reply = try connection.request(RequestHeader(.submit, session: 5, sequence: number), body: [1, 2])
            #expect(reply.header == ReplyHeader(.ok, flags: [], replica: 7, session: 5, sequence: number, position: 42))
            #expect(reply.body == [1, 2, 9])
        }
        #expect(replica.requests.count == 3)
        #expect(replica.requests[0].header == RequestHeader(.submit, session: 5, sequence: 1))
    }

    @Test func returnsRefusalsAsTheyAre() throws {
        let replica = try FakeReplica { _, _ in .busy(milliseconds: 5) }
        defer { replica.stop() }
        let connection = try Connection(to: replica.endpoint)
        let reply = try connection.request(RequestHeader(.ping, sequence: connection.freeSequence()))
        #expect(reply.header.status == .busy && reply.body == [5, 0, 0, 0])
    }

    @Test func passesOverRepliesToEarlierRequests() throws {
        // The first request is answered late: together with the second, and before it.
        let replica = try FakeReplica { request, index in
            index == 0 ? nil : index == 1 ? Self.late(request) : .ok([2])
        }
        defer { replica.stop() }
        let connection = try Connection(to: replica.endpoint)
        let error = #expect(throws: ClientError.self) {
            try connection.request(RequestHeader(.submit, session: 3, sequence: 1), timeout: .milliseconds(100))
        }
        guard case .unanswered(let reason, uncertain: true)? = error else {
            Issue.record("unexpected: \(String(describing: error))")
            return
        }
        #expect(reason.contains(replica.endpoint))
        // Answered under another session: not ours.
        #expect(throws: ClientError.self) {
            try connection.request(RequestHeader(.submit, session: 3, sequence: 2), timeout: .milliseconds(100))
        }
        #expect(try connection.request(RequestHeader(.submit, session: 3, sequence: 3)).body == [2])
    }

    private static func late(_ request: FakeReplica.Request) -> FakeReplica.Answer {
        FakeReplica.Answer(status: .ok, body: [1], session: request.header.session + 1)
    }

    @Test func openIsRecognisedByItsNumber() throws {
        let replica = try FakeReplica { _, _ in .opened(77) }
        defer { replica.stop() }
        let connection = try Connection(to: replica.endpoint)
        let reply = try connection.request(RequestHeader(.open, sequence: connection.freeSequence()))
        #expect(reply.header.session == 77)
    }

    @Test func nobodyThereIsSaid() throws {
        let endpoint = deadEndpoint()
        let connection = try Connection(to: endpoint)
        let error = #expect(throws: ClientError.self) {
            try connection.request(RequestHeader(.status, sequence: 1), timeout: .milliseconds(50))
        }
        #expect(error == .unanswered(reason: "\(endpoint) takes no connection", uncertain: false))
    }

    @Test func badEndpointsAreRefused() {
        let error = #expect(throws: ClientError.self) { _ = try Connection(to: "localhost:7200") }
        #expect(error.map { "\($0)" }?.contains("localhost:7200") == true)
    }

    @Test func readsTheStatus() throws {
        let replica = try FakeReplica { request, _ in request.header.code == .status ? .ok([UInt8]("{}".utf8)) : nil }
        defer { replica.stop() }
        #expect(try Connection(to: replica.endpoint).status() == [UInt8]("{}".utf8))
    }

    @Test func asksAllForTheirStatusAtOnce() throws {
        let replica = try FakeReplica { _, _ in .ok([UInt8]("{}".utf8)) }
        defer { replica.stop() }
        let dead = deadEndpoint()
        let results = try Connection.statuses(
            of: [replica.endpoint, dead, replica.endpoint, "nonsense"], timeout: .milliseconds(500))
        #expect(results[0] == .success([UInt8]("{}".utf8)) && results[2] == results[0])
        #expect(results[1] == .failure(.unanswered(reason: "\(dead) takes no connection", uncertain: false)))
        guard case .failure(.setUp(let reason)) = results[3] else {
            Issue.record("unexpected: \(results[3])")
            return
        }
        #expect(reason.contains("nonsense"))
    }
}
