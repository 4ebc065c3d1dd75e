import Consensus

/// Something that will happen to one replica, or to the simulation as a whole.
struct Event: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        /// `message` arrives at `replica` from `peer`.
        case message
        /// The replica's timer.
        case tick
        /// Records up to `number` become durable at `replica`.
        case flush
        /// The link to `peer` is up.
        case linkUp
        /// Commands that no client waits for are to be proposed.
        case proposal
        /// The commit in progress is durable.
        case commit
        /// The command `number` arrives at `replica`, from a client or from another replica.
        case command
        /// The answer `number` arrives at its client.
        case reply
        /// The client `replica` has something to do, unless it had since: `number` counts that.
        case client
        /// `replica` starts again.
        case restart
        /// The next fault is due; which, is drawn then.
        case fault
        /// The partition or muting numbered `number` ends.
        case heal
        /// The replica's engine looks whether it needs the state of another.
        case transferCheck
    }

    var kind: Kind
    var replica: ReplicaIndex = 0
    /// Events of an earlier life of the replica are void.
    var life: UInt32 = 0
    var peer: ReplicaIndex = 0
    var number: UInt64 = 0
    var message = Message(kind: .nack, view: 0)
}

/// Events in the order of their times; of equal times, in the order of their scheduling. A heap of small keys: the events stay
/// where they are. Plain memory, since the queue is the hottest part of a simulation.
struct EventQueue: ~Copyable {
    /// Time and order in one word: less than 2^24 events wait at one moment, and a run takes less than 2^40 us.
    private struct Key: BitwiseCopyable {
        var word: UInt64
        var place: Int
    }

    private static let orderBits: UInt64 = 24
    private var capacity = 1024
    private var heap = UnsafeMutablePointer<Key>.allocate(capacity: 1024)
    private var events = UnsafeMutablePointer<Event>.allocate(capacity: 1024)
    private var count = 0
    /// Places of `events` in use or free, and those free.
    private var placeCount = 0
    private var free: [Int] = []
    private var order: UInt64 = 0

    deinit {
        heap.deallocate()
        events.deallocate()
    }

    var nextTime: Microseconds? { count == 0 ? nil : heap[0].word >> Self.orderBits }

    mutating func schedule(_ event: Event, at time: Microseconds) {
        precondition(time < 1 << (64 - Self.orderBits), "a run ends before the time does")
        if count == capacity { grow() }
        order = (order + 1) & (1 << Self.orderBits - 1)
        let place: Int
        if let reused = free.popLast() {
            place = reused
        } else {
            place = placeCount
            placeCount += 1
        }
        (events + place).initialize(to: event)
        let key = Key(word: time << Self.orderBits | order, place: place)
        var child = count
        count += 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard key.word < heap[parent].word else { break }
            heap[child] = heap[parent]
            child = parent
        }
        heap[child] = key
    }

    mutating func next() -> (time: Microseconds, event: Event)? {
        guard count > 0 else { return nil }
        let first = heap[0]
        count -= 1
        if count > 0 {
            let last = heap[count]
            var parent = 0
            while true {
                var least = 2 * parent + 1
                guard least < count else { break }
                if least + 1 < count && heap[least + 1].word < heap[least].word { least += 1 }
                guard heap[least].word < last.word else { break }
                heap[parent] = heap[least]
                parent = least
            }
            heap[parent] = last
        }
        free.append(first.place)
        return (first.word >> Self.orderBits, events[first.place])
    }

    private mutating func grow() {
        let largerHeap = UnsafeMutablePointer<Key>.allocate(capacity: 2 * capacity)
        largerHeap.moveInitialize(from: heap, count: count)
        heap.deallocate()
        heap = largerHeap
        let largerEvents = UnsafeMutablePointer<Event>.allocate(capacity: 2 * capacity)
        largerEvents.moveInitialize(from: events, count: placeCount)
        events.deallocate()
        events = largerEvents
        capacity *= 2
    }
}
