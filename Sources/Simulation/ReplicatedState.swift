import MPaxosConsensus
import MPaxosInvariants

/// What is replicated: registers with a bound on the room they take, sessions by the very rules of the node, the
/// position; and beside it how far it is executed.
struct ReplicatedState: BitwiseCopyable {
    struct Session: BitwiseCopyable {
        var id: UInt64 = 0
        var sequence: UInt64 = 0
        var reply = Reply(status: .ok)
        var lastUse: UInt64 = 0
    }

    static let registerCount = 4
    static let mostSessions = 8
    static let room: UInt32 = 100

    private(set) var registers = [4 of UInt64](repeating: 0)
    private var sizes = [4 of UInt32](repeating: 0)
    private var sessions = [8 of Session](repeating: Session())
    /// What each value that is put into a register is changed by: 0 in a sound state.
    private var drift: UInt64 = 0
    private let sessionCount: Int
    private var openings: UInt64 = 0
    private(set) var position: UInt64 = 0

    // Progress.
    private(set) var executed: Instance = 0
    /// Commands of the next instance that are executed already.
    private(set) var records = 0
    private var useClock: UInt64 = 0

    init(sessionCount: Int) {
        invariant(sessionCount <= Self.mostSessions, "the sessions have room")
        self.sessionCount = sessionCount
    }

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
        let slot = command.session == 0 ? nil : slot(of: command.session)
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
        var size = command.size
        for register in sizes.indices where register != command.register { size += sizes[register] }
        guard size <= Self.room else {
            return Reply(status: .full, session: command.session, position: position)
        }
        let old = registers[command.register]
        registers[command.register] = command.value ^ drift
        sizes[command.register] = command.size
        return Reply(status: .ok, session: command.session, position: position, value: old)
    }

    private func slot(of session: UInt64) -> Int? {
        for slot in 0..<sessionCount where sessions[slot].id == session { return slot }
        return nil
    }

    /// In a free slot, or in that of the session used longest ago.
    private mutating func open() -> UInt64 {
        openings += 1
        var slot = 0
        for other in 0..<sessionCount {
            if sessions[slot].id == 0 { break }
            if sessions[other].id == 0 || sessions[other].lastUse < sessions[slot].lastUse { slot = other }
        }
        sessions[slot] = Session(id: SessionRules.id(opening: openings, slot: slot, seed: 0))
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
        for slot in 0..<sessionCount where sessions[slot].id != 0 {
            mix(sessions[slot].id)
            mix(sessions[slot].sequence << 8 ^ UInt64(sessions[slot].reply.status.rawValue))
            mix(sessions[slot].reply.position << 32 ^ sessions[slot].reply.value)
        }
        return hash
    }

    // MARK: Faults

    var isDrifted: Bool { drift != 0 }

    /// A value changes by itself, and commands are executed otherwise from now on.
    mutating func drift(register: Int) {
        drift = 1 << 40
        registers[register] ^= drift
    }

    // MARK: Planted bugs

    /// The registers as `other` has them, all else as it is.
    mutating func takeRegisters(of other: ReplicatedState) {
        registers = other.registers
        sizes = other.sizes
    }

    mutating func forgetRecords() { records = 0 }

    mutating func forgetUses() { for slot in 0..<sessionCount { sessions[slot].lastUse = 0 } }

    mutating func skip(to instance: Instance) {
        executed = instance
        records = 0
    }
}
