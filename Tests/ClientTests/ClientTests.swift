import Foundation
import MPaxosClient
import MPaxosKeyValueFormat
import MPaxosMessaging
import MPaxosWire
import Synchronization
import Testing

@Suite struct ClientTests {
    /// Sessions 1, 2, ...; a submit is answered with its session and sequence.
    private static func echo() throws -> FakeReplica {
        let opened = Counter()
        return try FakeReplica { request, _ in
            switch request.header.code {
            case .open: .opened(opened.next())
            case .submit:
                .ok(
                    [
                        UInt8(truncatingIfNeeded: request.header.session),
                        UInt8(truncatingIfNeeded: request.header.sequence),
                    ] + request.body)
            default: .ok(request.body)
            }
        }
    }

    private final class Counter: Sendable {
        private let value = Atomic<UInt64>(0)
        func next() -> UInt64 { value.wrappingAdd(1, ordering: .relaxed).newValue }
        var current: UInt64 { value.load(ordering: .relaxed) }
    }

    /// Another program listened at the endpoint, of a socket that a client does not fit: libzmq never tries such an
    /// endpoint again by itself.
    @Test func whoComesAfterAWrongSocketIsConnectedTo() async throws {
        let endpoint: String
        let client: Client
        do {
            let wrong = try Socket(.pair, in: Context(ioThreads: 1))
            let monitor = try Monitor(of: wrong)
            try wrong.bind("tcp://127.0.0.1:*")
            endpoint = wrong.lastEndpoint
            client = try Client(endpoints: [endpoint], options: patient)
            let end = ContinuousClock.now + .seconds(30)
            var hasFailed = false
            while !hasFailed, .now < end {
                if case .disconnected? = monitor.next() { hasFailed = true }
                usleep(1000)
            }
            #expect(hasFailed)
        }
        let replica = try FakeReplica(at: endpoint) { request, _ in .ok(request.body) }
        defer { replica.stop() }
        #expect(try await client.query([7]).body == [7])
    }

    @Test func manySessionsAtOnce() async throws {
        let replica = try Self.echo()
        defer { replica.stop() }
        let client = try Client(endpoints: [replica.endpoint], options: patient)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<50 {
                group.addTask {
                    let session = try await client.open()
                    for number in 1...20 as ClosedRange<UInt8> {
                        let reply = try await session.submit([number])
                        #expect(reply.body == [UInt8(session.id), number, number])
                    }
                    try await session.close()
                }
            }
            try await group.waitForAll()
        }
        #expect(replica.requests.count == 50 * 22)
    }

    /// Calls that overlap are sent one after another: the next only when the one before is answered.
    @Test func aSessionHasOneCommandUnderWay() async throws {
        let replica = try FakeReplica { request, index in
            // Every command is refused once: were two under way, their order would show it.
            request.header.code == .open ? .opened(1) : index % 2 == 1 ? .busy(milliseconds: 1) : .ok(request.body)
        }
        defer { replica.stop() }
        let client = try Client(endpoints: [replica.endpoint], options: patient)
        let session = try await client.open()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<20 as Range<UInt8> {
                group.addTask {
                    let reply = try await session.submit([number])
                    #expect(reply.body == [number])
                }
            }
            try await group.waitForAll()
        }
        let sequences = replica.requests.dropFirst().map(\.header.sequence)
        #expect(sequences == (1...20).flatMap { [UInt64($0), UInt64($0)] })
    }

    @Test func cancellationEndsTheWaitAndSparesTheRest() async throws {
        let replica = try FakeReplica { request, _ in
            request.header.code == .open ? .opened(1) : request.body == [1] ? nil : .ok(request.body)
        }
        defer { replica.stop() }
        let client = try Client(endpoints: [replica.endpoint], options: patient)
        let session = try await client.open()
        let stuck = Task { try await session.submit([1]) }
        while replica.requests.count < 2 { await Task.yield() }  // it is under way
        let queued = Task { try await session.submit([1, 1]) }
        let next = Task { try await session.submit([2]) }
        queued.cancel()
        #expect(await queued.result == .failure(.cancelled))
        stuck.cancel()
        #expect(await stuck.result == .failure(.cancelled))
        #expect(try await next.value.body == [2])
        // Cancelled before it began: nothing is sent.
        let count = replica.requests.count
        let late = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await session.submit([3])
        }
        #expect(await late.result == .failure(.cancelled))
        #expect(try await session.submit([4]).body == [4])
        #expect(replica.requests.count == count + 1)
    }

    @Test func failsOverWithTheSameNumberWhenAReplicaDies() async throws {
        let first = try Self.echo()
        let second = try Self.echo()  // which of the two opens the session depends on whose connection is made first
        defer {
            first.stop()
            second.stop()
        }
        let client = try Client(
            endpoints: [first.endpoint, second.endpoint], options: ClientOptions(attempt: .milliseconds(100)))
        let session = try await client.open()
        #expect(try await session.submit([1]).body == [1, 1, 1])
        let (used, spare) = first.requests.isEmpty ? (second, first) : (first, second)
        used.stop()
        for number in 2...5 as ClosedRange<UInt8> {
            #expect(try await session.submit([number]).body == [1, number, number])
        }
        #expect(Set(spare.requests.map(\.header.sequence)) == [2, 3, 4, 5])
    }

    @Test func shutdownFailsWhatIsUnderWay() async throws {
        let replica = try FakeReplica { _, _ in nil }
        defer { replica.stop() }
        let client = try Client(endpoints: [replica.endpoint], options: patient)
        let stuck = Task { try await client.query([1]) }
        while replica.requests.isEmpty { await Task.yield() }
        client.shutdown()
        #expect(await stuck.result == .failure(.shutDown))
        await #expect(throws: ClientError.shutDown) { try await client.query([1]) }
        client.shutdown()
    }

    @Test func keyValueClientIsTyped() async throws {
        let store = Mutex<[[UInt8]: [UInt8]]>([:])
        let replica = try FakeReplica { request, _ in
            guard request.header.code == .submit || request.header.code == .query else { return .opened(1) }
            let length = Int(request.body[1])
            let key = [UInt8](request.body[5..<5 + length])
            let rest = [UInt8](request.body[(5 + length)...])
            return store.withLock { store in
                let found = store[key]
                switch request.body[0] {
                case UInt8(ascii: "P"):
                    store[key] = rest
                    return .ok(found.map { [1] + $0 } ?? [0])
                case UInt8(ascii: "G"): return .ok(found.map { [1] + $0 } ?? [0])
                case UInt8(ascii: "D"):
                    store[key] = nil
                    return .ok(found.map { [1] + $0 } ?? [0])
                case UInt8(ascii: "C"): return .ok(found.map { [0, 1] + $0 } ?? [0, 0])
                case UInt8(ascii: "A"): return .ok([1, 12, 0, 0, 0, 0, 0, 0, 0])
                case UInt8(ascii: "I"): return .ok([2] + [UInt8]("overflow".utf8))
                default: return .ok([1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 7, 2, 0, 0, 0, 8, 9])
                }
            }
        }
        defer { replica.stop() }
        let values = KeyValueClient(try Client(endpoints: [replica.endpoint], options: patient))
        #expect(try await values.get([1]) == nil)
        #expect(try await values.put([1], [2]) == nil)
        #expect(try await values.put([1], [3]) == [2])
        #expect(try await values.get([1]) == [3])
        let swap = try await values.compareAndSwap([1], expected: nil, new: [4])
        #expect(!swap.swapped && swap.found == [3])
        #expect(try await values.delete([1]) == [3])
        #expect(try await values.append([1], [1]) == 12)
        await #expect(throws: ClientError.refused("overflow")) { try await values.add([1], 1) }
        let scan = try await values.scan()
        #expect(scan.entries == [KeyValueEntry(key: [7], value: [8, 9])] && scan.more)
        try await values.close()
        // One session for all the writes.
        #expect(replica.requests.filter { $0.header.code == .open }.count == 1)
        #expect(replica.requests.filter { $0.header.code == .submit }.map(\.header.sequence) == [1, 2, 3, 4, 5, 6])
    }

    @Test func keyValueClientOpensAnotherSessionWhenItsOwnWasEvicted() async throws {
        let opened = Counter()
        let replica = try FakeReplica { request, _ in
            switch request.header.code {
            case .open: .opened(opened.next())
            case .submit: request.header.session == 1 ? FakeReplica.Answer(status: .expired) : .ok([0])
            default: nil
            }
        }
        defer { replica.stop() }
        let values = KeyValueClient(try Client(endpoints: [replica.endpoint], options: patient))
        #expect(try await values.put([1], [2]) == nil)
        #expect(opened.current == 2)
    }
}

extension Result where Success == ClientReply, Failure == any Error {
    /// Tasks erase the error's type.
    static func == (result: Self, expected: Result<ClientReply, ClientError>) -> Bool {
        result.mapError { $0 as? ClientError ?? .setUp("another error") } == expected
    }
}
