import Foundation
import MPaxosFrames
import MPaxosKeyValueFormat
import MPaxosKeys
import MPaxosMessaging
import MPaxosWire
import Synchronization

/// A single replica that speaks MPX/1 over a libzmq ROUTER and keeps the rules of sessions, but orders and stores
/// nothing: enough for a load generator to run against. What a client may not do is written down as a violation.
final class FakeReplica: Sendable {
    /// How the replica misbehaves. Every `n` counts SUBMITs that would otherwise be executed; 0 is never.
    struct Script: Sendable {
        /// Answers STATUS with this leader; nil: knows none.
        var leader: Int?
        /// NO_FORWARD requests are redirected there.
        var redirect: String?
        /// Answers NO_LEADER to all that is ordered.
        var isLeaderless = false
        /// Answers DENIED to all SUBMITs.
        var denies = false
        var busyEvery = 0
        var ignoreEvery = 0
        /// Forgets the session of the SUBMIT with this number, once.
        var expireAt = 0
        /// At the SUBMIT with this number: closes its socket, once, and opens it again unless `diesAtStop`.
        var stopAt = 0
        var diesAtStop = false
        /// At the SUBMIT with this number: does nothing for so long, once.
        var stallAt = 0
        var stallMilliseconds = 0
        var maxRequest = 1 << 20
        var reply: @Sendable ([UInt8]) -> [UInt8] = { _ in [0] }
    }

    struct Record: Sendable {
        var requests: [CommandCode: Int] = [:]
        var executed = 0
        var retries = 0
        var violations: [String] = []
        var keys: Set<String> = []
        var peers: Set<[UInt8]> = []
        var sawNoForward = false
        var sawLocal = false
        var operations: [KeyValueCommand.Operation: Int] = [:]
        var valueSizes: Set<Int> = []
        var submitsOfSession: [UInt64: Int] = [:]
        var sessionsUsed: Int { submitsOfSession.count }
        var openSessions: Int { sessions.count }
        fileprivate var sessions: [UInt64: (sequence: UInt64, reply: [UInt8])] = [:]
        fileprivate var lastSession: UInt64 = 0
        fileprivate var submits = 0
    }

    let id: Int
    let endpoint: String
    private let shared: Mutex<(script: Script, record: Record)>
    private let door: Door?
    private let isStopping = Atomic<Bool>(false)
    private let stopped = DispatchSemaphore(value: 0)

    /// - Parameter door: with it clients need a key.
    init(id: Int = 0, door: Door? = nil, _ script: Script) throws {
        self.id = id
        self.door = door
        var record = Record()
        // As in a cluster, an id is given once: what one replica opened, the other does not.
        record.lastSession = UInt64(id + 1) * 1000
        shared = Mutex((script, record))
        let context = try Context(ioThreads: 1)
        let socket = try Socket(.router, in: context)
        try socket.bind("tcp://127.0.0.1:*")
        endpoint = socket.lastEndpoint
        // Bound anew by the thread that serves, at the port that was found free.
        try socket.unbind(endpoint)
        let ready = DispatchSemaphore(value: 0)
        Thread.detachNewThread { [self] in
            serve(ready)
            stopped.signal()
        }
        guard ready.wait(timeout: .now() + 30) == .success else {
            isStopping.store(true, ordering: .relaxed)
            throw NeverReady(endpoint: endpoint)
        }
    }

    /// Somebody else has taken the port.
    struct NeverReady: Error { let endpoint: String }

    var record: Record { shared.withLock { $0.record } }

    func change(_ body: @Sendable (inout Script) -> Void) {
        shared.withLock { body(&$0.script) }
    }

    /// Ends the thread; no request is answered any more.
    func stop() {
        isStopping.store(true, ordering: .relaxed)
        stopped.wait()
    }

    private func serve(_ ready: DispatchSemaphore) {
        var isFirst = true
        while !isStopping.load(ordering: .relaxed) {
            guard let context = try? Context(ioThreads: 1), let socket = try? Socket(.router, in: context) else {
                return
            }
            let handler = door.flatMap { door in
                try? ZAPHandler(in: context) { door.lets($0.key) ? 1 : nil }
            }
            // Its end is that of the context.
            defer { withExtendedLifetime(handler) {} }
            if let door {
                guard handler != nil, (try? socket.setCurveServer(door.pair, domain: "clients")) != nil else { return }
            }
            // The port may still be held for a moment by the socket that was closed.
            while (try? socket.bind(endpoint)) == nil {
                if isStopping.load(ordering: .relaxed) { return }
                usleep(1000)
            }
            if isFirst { ready.signal() }
            isFirst = false
            if !serve(socket) { return }
        }
    }

    /// True: open the socket again.
    private func serve(_ socket: borrowing Socket) -> Bool {
        var poller = Poller(capacity: 1)
        _ = poller.add(socket)
        let frame = Frame()
        while !isStopping.load(ordering: .relaxed) {
            guard poller.wait(timeoutMilliseconds: 10) > 0 else { continue }
            while socket.receive(frame) {
                var frames = [Array(frame.bytes)]
                while frame.hasMore, socket.receive(frame) { frames.append(Array(frame.bytes)) }
                let outcome = shared.withLock { answer(frames, &$0.script, &$0.record) }
                switch outcome {
                case .reply(let header, let body):
                    let headerBytes = [UInt8](unsafeUninitializedCapacity: clientHeaderSize) { buffer, count in
                        header.encode(into: UnsafeMutableRawPointer(buffer.baseAddress!))
                        count = clientHeaderSize
                    }
                    for (index, part) in [frames[0], [], headerBytes, body].enumerated() {
                        _ = part.withUnsafeBytes { socket.send(copying: $0, more: index < 3) }
                    }
                case .nothing: break
                case .stop(let again): return again
                case .stall(let milliseconds): usleep(UInt32(milliseconds) * 1000)
                }
            }
        }
        return false
    }

    private enum Outcome {
        case reply(ReplyHeader, [UInt8])
        case nothing
        case stop(again: Bool)
        case stall(Int)
    }

    private func answer(_ frames: [[UInt8]], _ script: inout Script, _ record: inout Record) -> Outcome {
        guard frames.count == 4, frames[1].isEmpty else {
            record.violations.append("\(frames.count) frames")
            return .nothing
        }
        let body = frames[3]
        let examination = frames[2].withUnsafeBytes {
            RequestExamination(
                frames: 2, header: $0, bodySize: body.count, maxRequest: script.maxRequest, replica: UInt16(id))
        }
        switch examination {
        case .rejected(let rejection):
            if case .malformed(let reason) = rejection.cause { record.violations.append("\(reason)") }
            let bytes = [UInt8](unsafeUninitializedCapacity: Rejection.largestBody) { buffer, count in
                count = rejection.writeBody(into: UnsafeMutableRawPointer(buffer.baseAddress!))
            }
            return .reply(rejection.header, bytes)
        case .accepted(let header, let code):
            return answer(header, code, body, frames[0], &script, &record)
        }
    }

    private func answer(
        _ header: RequestHeader, _ code: CommandCode, _ body: [UInt8], _ peer: [UInt8], _ script: inout Script,
        _ record: inout Record
    ) -> Outcome {
        func reply(_ status: StatusCode, _ body: [UInt8] = [], position: UInt64 = 0) -> Outcome {
            .reply(ReplyHeader(status, to: header, replica: UInt16(id), position: position), body)
        }
        record.requests[code, default: 0] += 1
        if header.flags.contains(.noForward) {
            record.sawNoForward = true
            if let redirect = script.redirect { return reply(.redirect, Array(redirect.utf8)) }
        }
        if script.isLeaderless && code != .status && code != .ping { return reply(.noLeader, [1, 0, 0, 0]) }
        switch code {
        case .status:
            let leader = script.leader.map { "\($0)" } ?? "null"
            return reply(.ok, Array(#"{"id":\#(id),"role":"x","leader":\#(leader),"pid":\#(getpid())}"#.utf8))
        case .ping:
            return reply(.ok, body)
        case .open:
            record.peers.insert(peer)
            record.lastSession += 1
            record.sessions[record.lastSession] = (0, [])
            var opened = header
            opened.session = record.lastSession
            return .reply(ReplyHeader(.ok, to: opened, replica: UInt16(id), position: 1), [])
        case .close:
            return reply(record.sessions.removeValue(forKey: header.session) == nil ? .expired : .ok)
        case .query:
            examine(body, [.get], &record)
            if header.flags.contains(.local) { record.sawLocal = true }
            record.executed += 1
            return reply(.ok, script.reply(body), position: 1)
        case .submit:
            if script.denies { return reply(.denied, Array("the key may read".utf8)) }
            return submit(header, body, &script, &record, reply)
        }
    }

    private func submit(
        _ header: RequestHeader, _ body: [UInt8], _ script: inout Script, _ record: inout Record,
        _ reply: (StatusCode, [UInt8], UInt64) -> Outcome
    ) -> Outcome {
        guard let session = record.sessions[header.session] else { return reply(.expired, [], 0) }
        if header.sequence < session.sequence {
            record.violations.append("sequence \(header.sequence) after \(session.sequence)")
            return reply(.stale, [], 0)
        }
        if header.sequence == session.sequence {
            record.retries += 1
            return reply(.ok, session.reply, 1)
        }
        record.submits += 1
        let number = record.submits
        if number == script.stopAt {
            return .stop(again: !script.diesAtStop)
        }
        if number == script.stallAt { return .stall(script.stallMilliseconds) }
        if number == script.expireAt {
            record.sessions[header.session] = nil
            return reply(.expired, [], 0)
        }
        if script.busyEvery > 0 && number % script.busyEvery == 0 { return reply(.busy, [1, 0, 0, 0], 0) }
        examine(body, [.put, .get, .delete, .compareAndSwap], &record)
        record.executed += 1
        record.submitsOfSession[header.session, default: 0] += 1
        let answer = script.reply(body)
        record.sessions[header.session] = (header.sequence, answer)
        // Executed, but the reply is lost.
        if script.ignoreEvery > 0 && number % script.ignoreEvery == 0 { return .nothing }
        return reply(.ok, answer, 1)
    }

    private func examine(_ body: [UInt8], _ allowed: [KeyValueCommand.Operation], _ record: inout Record) {
        guard body.count >= 21, let operation = KeyValueCommand.Operation(rawValue: body[0]),
            allowed.contains(operation), Array(body[1..<5]) == [16, 0, 0, 0]
        else {
            record.violations.append("a body begins with \(body.prefix(5))")
            return
        }
        record.operations[operation, default: 0] += 1
        let key = String(decoding: body[5..<21], as: UTF8.self)
        if !key.hasPrefix("key-") || UInt64(key.dropFirst(4)) == nil { record.violations.append("key \(key)") }
        if record.keys.count < 10_000 { record.keys.insert(key) }
        switch operation {
        case .put: record.valueSizes.insert(body.count - 21)
        case .compareAndSwap:
            if body.count < 26 || body[21..<26].contains(where: { $0 != 0 }) {
                record.violations.append("a swap of a value that is present")
            }
        default: if body.count != 21 { record.violations.append("a \(operation) with a value") }
        }
    }
}

/// Who a replica is, and whom it lets in.
struct Door: Sendable {
    let pair: KeyPair
    let guests: Set<PublicKey>

    init(_ pair: KeyPair, _ guests: KeyPair...) {
        self.pair = pair
        self.guests = Set(guests.map(\.publicKey))
    }

    func lets(_ key: PublicKey) -> Bool { guests.contains(key) }
}
