import Consensus

/// Something that will happen to one replica, or to the simulation as a whole.
struct Event {
    enum Kind: UInt8 {
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

/// Events in the order of their times; of equal times, in the order of their scheduling.
struct EventQueue {
    private struct Key {
        var time: Microseconds
        var order: UInt64
        var place: Int
    }

    private var heap: [Key] = []
    private var events: [Event] = []
    private var free: [Int] = []
    private var order: UInt64 = 0

    var nextTime: Microseconds? { heap.first?.time }

    mutating func schedule(_ event: Event, at time: Microseconds) {
        order += 1
        let place: Int
        if let reused = free.popLast() {
            place = reused
            events[place] = event
        } else {
            place = events.count
            events.append(event)
        }
        heap.append(Key(time: time, order: order, place: place))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard precedes(heap[child], heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    mutating func next() -> (time: Microseconds, event: Event)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var parent = 0
            while true {
                var least = parent
                let left = 2 * parent + 1
                if left < heap.count && precedes(heap[left], heap[least]) { least = left }
                if left + 1 < heap.count && precedes(heap[left + 1], heap[least]) { least = left + 1 }
                guard least != parent else { break }
                heap.swapAt(parent, least)
                parent = least
            }
        }
        free.append(first.place)
        return (first.time, events[first.place])
    }

    private func precedes(_ a: Key, _ b: Key) -> Bool {
        a.time != b.time ? a.time < b.time : a.order < b.order
    }
}
