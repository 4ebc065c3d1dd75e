import MPaxosConsensus
import MPaxosInvariants
import MPaxosKeyValueFormat
import MPaxosSimulation
import MPaxosWire

/// A client of the cluster: one request at a time, repeated until it is answered, at one replica or another.
final class ClusterClient {
    struct Operation {
        enum Kind { case open, submit, unsessioned, query, local }

        let kind: Kind
        let header: RequestHeader
        let body: [UInt8]
        /// What had been answered to anybody when it began.
        let floor: UInt64
        /// Tells its answers from those of operations before.
        var number: UInt64 = 0
        var sent = 0
    }

    /// What stands in an envelope in front of a request: its connection, and what the client tells answers apart by.
    struct Name: BitwiseCopyable {
        let client: Int
        let operation: UInt64
    }

    let index: Int
    var session: UInt64?
    var sequence: UInt64 = 0
    var operation: Operation?
    var host = 0
    /// Of the entry in the agenda that counts.
    var timer: UInt64 = 0
    var completed: UInt64 = 0
    /// It begins nothing, and repeats nothing.
    var isResting = false
    /// The highest position that it was told.
    var seen: UInt64 = 0
    /// Numbers its operations and values.
    var count: UInt64 = 0

    init(_ index: Int) { self.index = index }
}

extension ClusterSimulator {
    static let keys = 6

    func schedule(_ client: ClusterClient, after time: UInt64) {
        client.timer += 1
        agenda.put(.client(client.index, number: client.timer), at: now + 1 + time)
    }

    /// The client begins something, or repeats what was not answered.
    func act(_ client: ClusterClient) {
        if client.isResting { return }
        if client.operation == nil {
            client.operation = draw(for: client)
            client.count += 1
            client.operation?.number = client.count
        }
        guard var operation = client.operation else { return }
        // What has no session is not repeated: it may have had its effect.
        if operation.kind == .unsessioned, operation.sent > 0 {
            client.operation = nil
            return schedule(client, after: random.below(plan.thinkTime))
        }
        if operation.sent > 0, random.chance(perMille: 700) { client.host = random.index(options.replicaCount) }
        operation.sent += 1
        client.operation = operation
        if !(isFaulty && random.chance(perMille: plan.clientLoss)) {
            let header = [UInt8](unsafeUninitializedCapacity: clientHeaderSize) { bytes, count in
                operation.header.encode(into: UnsafeMutableRawPointer(bytes.baseAddress!))
                count = clientHeaderSize
            }
            agenda.put(
                .request(
                    .init(client: client.index, operation: operation.number), host: client.host, header: header,
                    body: operation.body),
                at: now + 10 + random.below(300))
        }
        // In calm times a client waits for longer than a gateway does.
        schedule(client, after: isFaulty ? plan.patience : plan.gatewayPatience + plan.patience)
    }

    private func draw(for client: ClusterClient) -> ClusterClient.Operation {
        guard let session = client.session else {
            return .init(kind: .open, header: RequestHeader(.open), body: [], floor: checker.acknowledged)
        }
        let key = [UInt8(ascii: "k"), UInt8(random.index(Self.keys))]
        switch random.below(100) {
        case ..<15:
            return .init(
                kind: .query, header: RequestHeader(.query), body: KeyValueCommand.get(key: key).body,
                floor: checker.acknowledged)
        case ..<25:
            return .init(
                kind: .local, header: RequestHeader(.query, flags: .local, position: client.seen),
                body: KeyValueCommand.get(key: key).body, floor: client.seen)
        case ..<30:
            return .init(
                kind: .unsessioned, header: RequestHeader(.submit), body: put(key, by: client),
                floor: checker.acknowledged)
        default:
            client.sequence += 1
            return .init(
                kind: .submit, header: RequestHeader(.submit, session: session, sequence: client.sequence),
                body: command(on: key, by: client), floor: checker.acknowledged)
        }
    }

    private func command(on key: [UInt8], by client: ClusterClient) -> [UInt8] {
        switch random.below(10) {
        case 0: KeyValueCommand.delete(key: key).body
        case 1: KeyValueCommand.get(key: key).body
        default: put(key, by: client)
        }
    }

    /// Each value is another one.
    private func put(_ key: [UInt8], by client: ClusterClient) -> [UInt8] {
        client.count += 1
        let name = Array("\(client.index).\(client.count)".utf8)
        let size =
            plan.isHeavy && random.chance(perMille: 900)
            ? plan.largestValue - 20
            : random.chance(perMille: plan.isCrowd ? 200 : 800) ? random.index(64) : random.index(plan.largestValue)
        return KeyValueCommand.put(key: key, value: name + [UInt8](repeating: 46, count: size)).body
    }

    func answered(
        _ client: ClusterClient, _ number: UInt64, by host: Int, header: [UInt8], body: [UInt8]
    ) throws(SimulationFailure) {
        guard let reply = header.withUnsafeBytes({ ReplyHeader(decoding: $0) }) else {
            throw failure("replica \(host) answers client \(client.index) with a header that is none")
        }
        guard let operation = client.operation, number == operation.number, reply.flags == operation.header.flags,
            reply.sequence == operation.header.sequence,
            operation.kind == .open || reply.session == operation.header.session
        else { return }
        switch reply.status {
        case .ok, .full:
            try check(checker.acknowledge(operation, reply, body, by: client))
            client.operation = nil
            client.completed += 1
            client.seen = max(client.seen, reply.position)
            if operation.kind == .open { (client.session, client.sequence) = (reply.session, 0) }
            // In calm times so seldom that a log reaches back for as long as it takes to give a state.
            let pause = isFaulty ? 0 : UInt64(clients.count) * 5_000
            schedule(client, after: pause + random.below(plan.thinkTime))
        case .busy, .noLeader: schedule(client, after: 1_000 + random.below(10_000))
        case .redirect: schedule(client, after: 10)
        case .stale where operation.kind == .submit:
            throw failure("the last command of client \(client.index), \(operation.header.sequence), is called stale")
        case .expired:
            client.session = nil
            client.operation = nil
            schedule(client, after: 10)
        case .stale: break
        case .malformed, .tooLarge, .denied:
            throw failure(
                "replica \(host) refuses a request of client \(client.index): \(reply.status) \(String(decoding: body, as: UTF8.self))"
            )
        }
    }
}
