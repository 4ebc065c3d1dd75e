import Consensus

/// What is replicated: registers with a bound on the room they take, sessions by the very rules of the node, the position;
/// and beside it how far it is executed.
struct ReplicatedState {
    struct Session {
        var id: UInt64 = 0
        var sequence: UInt64 = 0
        var reply = Reply(status: .ok)
        var lastUse: UInt64 = 0
    }

    static let registerCount = 4
    static let room: UInt32 = 100

    private(set) var registers = [UInt64](repeating: 0, count: registerCount)
    private var sizes = [UInt32](repeating: 0, count: registerCount)
    private var sessions: [Session]
    private var openings: UInt64 = 0
    private(set) var position: UInt64 = 0

    // Progress.
    private(set) var executed: Instance = 0
    /// Commands of the next instance that are executed already.
    private(set) var records = 0
    private var useClock: UInt64 = 0

    init(sessionCount: Int) { sessions = [Session](repeating: Session(), count: sessionCount) }

    mutating func endInstance() {
        executed += 1
        records = 0
    }

    mutating func apply(_ command: Command, bugs: PlantedBugs) -> Reply {
        records += 1
        let kind: OrderedKind
        switch command.kind {
        case .query: return Reply(status: .ok, position: position, value: registers[command.register])
        case .open: kind = .open
        case .submit: kind = .submit
        case .close: kind = .close
        }
        let slot = command.session == 0 ? nil : sessions.firstIndex { $0.id == command.session }
        var ruling = SessionRules.ruling(
            kind: kind, session: command.session, sequence: command.sequence,
            lastSequence: slot.map { sessions[$0].sequence })
        if ruling == .repeatReply && bugs.contains(.retryRunsAgain) { ruling = .execute(remembered: true) }
        switch ruling {
        case .open:
            position += 1
            return Reply(status: .ok, session: open(), position: position)
        case .close:
            position += 1
            sessions[slot!] = Session()
            return Reply(status: .ok, session: command.session, position: position)
        case .repeatReply:
            use(slot!)
            return sessions[slot!].reply
        case .stale:
            use(slot!)
            position += 1
            return Reply(status: .stale, session: command.session)
        case .expired:
            position += 1
            return Reply(status: .expired, session: command.session)
        case .execute(let isRemembered):
            position += 1
            let reply = run(command)
            if isRemembered {
                sessions[slot!].sequence = command.sequence
                sessions[slot!].reply = reply
                use(slot!)
            }
            return reply
        }
    }

    private mutating func run(_ command: Command) -> Reply {
        let others = sizes.reduce(0, +) - sizes[command.register]
        guard others + command.size <= Self.room else {
            return Reply(status: .full, session: command.session, position: position)
        }
        let old = registers[command.register]
        registers[command.register] = command.value
        sizes[command.register] = command.size
        return Reply(status: .ok, session: command.session, position: position, value: old)
    }

    private mutating func open() -> UInt64 {
        openings += 1
        let slot: Int
        if let free = sessions.firstIndex(where: { $0.id == 0 }) {
            slot = free
        } else {
            slot = sessions.indices.min { sessions[$0].lastUse < sessions[$1].lastUse }!
        }
        sessions[slot] = Session(id: SessionRules.id(opening: openings, slot: slot))
        use(slot)
        return sessions[slot].id
    }

    private mutating func use(_ slot: Int) {
        useClock += 1
        sessions[slot].lastUse = useClock
    }

    /// Of all that must be equal at equal positions.
    var digest: UInt64 {
        var hash: UInt64 = position ^ openings << 32
        func mix(_ word: UInt64) {
            hash ^= word &+ 0x9E37_79B9_7F4A_7C15
            hash = (hash ^ hash >> 29) &* 0xBF58_476D_1CE4_E5B9
        }
        for register in registers.indices { mix(registers[register] << 8 ^ UInt64(sizes[register])) }
        for session in sessions where session.id != 0 {
            mix(session.id)
            mix(session.sequence << 8 ^ UInt64(session.reply.status.rawValue))
            mix(session.reply.position << 32 ^ session.reply.value)
        }
        return hash
    }

    // MARK: Planted bugs

    /// The registers as `other` has them, all else as it is.
    mutating func takeRegisters(of other: ReplicatedState) {
        registers = other.registers
        sizes = other.sizes
    }

    mutating func forgetRecords() { records = 0 }

    mutating func forgetUses() { for slot in sessions.indices { sessions[slot].lastUse = 0 } }

    mutating func skip(to instance: Instance) {
        executed = instance
        records = 0
    }
}
