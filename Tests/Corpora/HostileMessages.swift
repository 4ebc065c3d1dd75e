import MPaxosConsensus

/// Messages that no honest replica has to say, as far as `PeerFrame` would decode them, with numbers about those of the
/// core that they go to.
struct HostileMessages {
    private let count: Int
    private let window: UInt64
    private let slotCount: UInt64
    var random: FuzzRandom

    init(_ count: Int, seed: UInt64, window: Int, slotCount: Int) {
        self.count = count
        self.window = UInt64(window)
        self.slotCount = UInt64(slotCount)
        random = FuzzRandom(seed: ~seed)
    }

    mutating func next(about core: borrowing Core, from: Int, to: Int) -> Message {
        let kind = Message.Kind(rawValue: UInt8(1 + random.below(11)))!
        let (promised, base) = (core.view, core.base)
        let numbers = [
            core.decided, core.floor, core.base, core.known, core.next, core.end, core.commit, core.accepted,
            core.highest, core.acceptedDurable, core.served,
        ]
        var message = Message(kind: kind, view: view(about: promised, from: from, to: to, kind))
        switch kind {
        case .preVote, .nack: message.commit = number(numbers)
        case .preVoteGrant: break
        case .prepare: message.instance = number(numbers)
        case .promise:
            message.flags = [.none, .more, .last][random.below(3)]
            (message.bound, message.commit) = (number(numbers), number(numbers))
            guard !message.flags.contains(.last) else { break }
            message.instance = number(numbers)
            message.acceptedView = random.below(4) == 0 ? decidedView : number([promised, message.view])
            message.batch = batch()
        case .accept, .accepted, .heartbeat:
            message.instance = number(numbers)
            message.bound = random.below(3) > 0 ? base : number(numbers)
            message.commit = number(numbers)
            message.acceptedView = number([0, 1, 2])
            if kind == .accept { message.batch = batch() }
            if kind == .heartbeat, random.below(3) == 0 { message.flags = .quiet }
            if kind == .accepted { message.flags = [.none, .gap, .full, .gapOrFull][random.below(4)] }
        case .catchUpRequest: (message.instance, message.bound) = (number(numbers), number(numbers))
        case .decided:
            (message.instance, message.commit) = (number(numbers), number(numbers))
            message.batch = batch()
            if random.below(2) == 0 { message.flags = .last }
        case .belowFloor: (message.instance, message.commit) = (number(numbers), number(numbers))
        }
        return message
    }

    private mutating func batch() -> Batch {
        if random.below(4) == 0 { return .noop }
        let length: UInt32 = [1, 8, 4096, 1 << 20, .max][random.below(5)]
        return Batch(offset: UInt64(random.below(1 << 20)) << 32, length: length, checksum: 7)
    }

    /// Mostly one in which who it comes from may speak so.
    private mutating func view(about promised: View, from: Int, to: Int, _ kind: Message.Kind) -> View {
        if random.below(12) == 0 { return number([promised]) }
        let speaker =
            switch kind {
            case .preVoteGrant, .accepted, .promise: to
            case .preVote, .prepare, .accept, .heartbeat: from
            default: random.below(count)
            }
        var view = promised + [1, UInt64(count), 1000, 0, 0, 0, 0, 0, 0, 0][random.below(10)]
        while leadingReplica(of: view, among: count) != speaker { view += 1 }
        return view
    }

    mutating func number(_ about: [UInt64]) -> UInt64 {
        let number = about[random.below(about.count)]
        switch random.below(20) {
        case 0: return [0, 1, 2][random.below(3)]
        case 1:
            let edge: UInt64 = [1 << 31, 1 << 32, 1 << 48, 1 << 61, 1 << 62, 1 << 63, 0][random.below(7)]
            return edge &+ UInt64(random.below(5)) &- 2
        case 2: return random.next() >> UInt64(random.below(64))
        case 3..<8: return number
        default:
            let distance = [1, 1, 2, 3, window, 4 * window, slotCount, 31, 32][random.below(9)]
            return random.below(2) == 0 ? number &+ distance : number &- distance
        }
    }
}
