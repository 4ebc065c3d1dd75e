import MPaxosConsensus

@testable import MPaxosStorage

/// The rules of sessions said once more, over a dictionary, as plainly as possible: what the pool is held to.
struct SessionModel {
    struct Kept: Equatable {
        var sequence: UInt64
        var status: OrderedStatus
        var position: UInt64
        var body: [UInt8]
    }

    struct Expected: Equatable {
        var status: OrderedStatus
        var session: UInt64
        var position: UInt64
        var body: [UInt8]
    }

    let capacity: Int
    private(set) var position: UInt64 = 0
    /// Sessions that are open, with what they keep.
    private(set) var sessions: [UInt64: Kept?] = [:]
    /// The same, the one used longest ago first.
    private(set) var order: [UInt64] = []
    private(set) var evicted = 0

    init(capacity: Int) { self.capacity = capacity }

    enum Step: Equatable {
        case run
        case done(Expected)
    }

    private mutating func use(_ session: UInt64) {
        order.removeAll { $0 == session }
        order.append(session)
    }

    /// - Parameter newID: what the pool chose for an OPEN.
    mutating func begin(_ kind: OrderedKind, _ session: UInt64, _ sequence: UInt64, newID: UInt64?) -> Step {
        switch kind {
        case .open:
            if sessions.count == capacity {
                sessions[order.removeFirst()] = nil
                evicted += 1
            }
            sessions[newID!] = .some(nil)
            use(newID!)
            position += 1
            return .done(Expected(status: .ok, session: newID!, position: position, body: []))
        case .close:
            position += 1
            if sessions[session] == nil {
                return .done(Expected(status: .expired, session: session, position: 0, body: []))
            }
            sessions[session] = nil
            order.removeAll { $0 == session }
            return .done(Expected(status: .ok, session: session, position: position, body: []))
        case .submit:
            if session == 0 { return .run }
            guard let kept = sessions[session] else {
                position += 1
                return .done(Expected(status: .expired, session: session, position: 0, body: []))
            }
            let last = kept?.sequence ?? 0
            if sequence > last { return .run }
            use(session)
            if sequence == last, let kept {
                return .done(Expected(status: kept.status, session: session, position: kept.position, body: kept.body))
            }
            position += 1
            return .done(Expected(status: .stale, session: session, position: 0, body: []))
        }
    }

    mutating func end(_ session: UInt64, _ sequence: UInt64, _ status: OrderedStatus, _ body: [UInt8]) -> Expected {
        position += 1
        if session != 0 {
            sessions[session] = Kept(sequence: sequence, status: status, position: position, body: body)
            use(session)
        }
        return Expected(status: status, session: session, position: position, body: body)
    }
}
