import MPaxosInvariants

/// The kinds of ordered commands that concern the sessions. The codes are those of the client protocol.
@usableFromInline package enum OrderedKind: UInt8, Sendable, BitwiseCopyable {
    case open = 1
    case submit = 2
    case close = 4
}

/// The statuses that the execution of an ordered command can end with. The codes are those of the client protocol.
@usableFromInline package enum OrderedStatus: UInt8, Sendable, BitwiseCopyable {
    case ok = 0
    case stale = 3
    case expired = 4
    case full = 8
}

/// The rules of sessions (client protocol, "Rules") as pure functions of values: exactly-once, retries, eviction. Run
/// alike by the state pool and by the simulator.
@usableFromInline package enum SessionRules {
    /// What is to happen with an ordered command.
    @usableFromInline package enum Ruling: Equatable, Sendable {
        /// A new session, in place of the one used longest ago when the table is full.
        case open
        /// Run the state machine; `remembered`: keep its reply for retries.
        case execute(remembered: Bool)
        /// Give the kept reply of the session's last command, with the position that it has. This ruling alone takes no
        /// position of its own; it is a use of the session all the same, as a stale command is.
        case repeatReply
        case stale
        case expired
        case close
    }

    /// - Parameter lastSequence: that of the session named, 0 when it has none yet; nil when the session is not known.
    @inlinable package static func ruling(kind: OrderedKind, session: UInt64, sequence: UInt64, lastSequence: UInt64?)
        -> Ruling
    {
        switch kind {
        case .open: return .open
        case .close: return lastSequence == nil ? .expired : .close
        case .submit:
            if session == 0 { return .execute(remembered: false) }
            guard let last = lastSequence else { return .expired }
            // Sequence 0 is refused before it is ordered; a peer that forwards it all the same gets no reply of a
            // command never sent.
            if sequence == 0 || sequence < last { return .stale }
            return sequence == last ? .repeatReply : .execute(remembered: true)
        }
    }

    // MARK: Session ids

    /// Places in the table that an id can name.
    @inlinable package static var slotBits: UInt64 { 20 }
    @inlinable package static var slotLimit: Int { 1 << Int(slotBits) }

    /// The id of the session that the `opening`-th OPEN, counted from 1, put into a slot: never 0.
    ///
    /// - Parameter seed: random bits that came with the OPEN: nobody else can guess the id, nor end the session, and it
    ///   is used again by no more than chance. 0: it came without, and its id is the count.
    @inlinable package static func id(opening: UInt64, slot: Int, seed: UInt64) -> UInt64 {
        invariant(opening > 0 && opening < 1 << (64 - slotBits), "sessions are counted from 1, in 44 bits")
        invariant(slot >= 0 && slot < slotLimit, "a slot is one of the table's")
        // The count makes the id another one for each opening, also where a seed is used twice.
        let drawn = (seed ^ opening &* 0x9E37_79B9_7F4A_7C15) >> slotBits
        return (seed == 0 || drawn == 0 ? opening : drawn) << slotBits | UInt64(slot)
    }

    @inlinable package static func slot(of session: UInt64) -> Int {
        Int(truncatingIfNeeded: session) & (slotLimit - 1)
    }
}
