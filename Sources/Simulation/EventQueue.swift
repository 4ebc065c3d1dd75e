import MPaxosConsensus
import MPaxosInvariants

/// Something that will happen to one replica, or to the simulation as a whole.
struct Event: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        /// The message at place `number` of the queue arrives at `replica` from `peer`.
        case message
        /// The replica's timer.
        case tick
        /// Records up to `number` become durable at `replica`.
        case flush
        /// The link to `peer` is up. With links that take their time: 0: it may be had now; 1: the replica learns that
        /// it has it.
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
        /// The first frame on the way from `peer` to `replica` arrives, unless the way was emptied since: `number`
        /// counts that.
        case arrival
        /// The outbox of `replica` for `peer` is looked at, unless it was since.
        case wake
        /// `replica` has room for batches again.
        case room
        /// What `replica` has written of others, up to `number`, becomes durable.
        case recorded
        /// `replica` looks for those that the founding waits for.
        case acquaint
        /// A copy takes the place of the pools of `replica`, and it is to meet `peer` first.
        case rollBack
        /// `replica` compares its state with what the others tell of theirs.
        case compare
    }

    let kind: Kind
    private let replicaByte: Int8
    private let peerByte: Int8
    /// Events of an earlier life of the replica are void.
    let life: UInt32
    let number: UInt64

    var replica: ReplicaIndex { ReplicaIndex(replicaByte) }
    var peer: ReplicaIndex { ReplicaIndex(peerByte) }

    init(kind: Kind, replica: ReplicaIndex = 0, life: UInt32 = 0, peer: ReplicaIndex = 0, number: UInt64 = 0) {
        self.kind = kind
        replicaByte = Int8(replica)
        peerByte = Int8(peer)
        self.life = life
        self.number = number
    }
}

/// Events in the order of their times; of equal times, in the order of their scheduling. A heap with four children a
/// node; the messages stay where they are.
struct EventQueue: ~Copyable {
    /// Time and order in one word: less than 2^24 events wait at one moment, and a run takes less than 2^40 us.
    struct Node: BitwiseCopyable {
        var word: UInt64
        var event: Event
    }

    private static let orderBits: UInt64 = 24
    private var capacity = 1024
    private var heap = UnsafeMutablePointer<Node>.allocate(capacity: 1024)
    private var count = 0
    private var order: UInt64 = 0
    private var messages = Buffer<Message>(capacity: 256)
    private var freePlaces = Buffer<Int>(capacity: 256)

    deinit { heap.deallocate() }

    var nextTime: Microseconds? { count == 0 ? nil : heap[0].word >> Self.orderBits }

    mutating func schedule(_ event: Event, at time: Microseconds) {
        invariant(time < 1 << (64 - Self.orderBits), "a run ends before the time does")
        if count == capacity { grow() }
        order = (order + 1) & (1 << Self.orderBits - 1)
        let word = time << Self.orderBits | order
        var child = count
        count += 1
        while child > 0 {
            let parent = (child - 1) / 4
            guard word < heap[parent].word else { break }
            heap[child] = heap[parent]
            child = parent
        }
        heap[child] = Node(word: word, event: event)
    }

    /// `message` arrives at `replica` from `peer`.
    mutating func schedule(
        _ message: Message, from peer: ReplicaIndex, to replica: ReplicaIndex, at time: Microseconds
    ) {
        let place: Int
        if let free = freePlaces.popLast() {
            place = free
            messages[place] = message
        } else {
            place = messages.count
            messages.append(message)
        }
        schedule(Event(kind: .message, replica: replica, peer: peer, number: UInt64(place)), at: time)
    }

    mutating func next() -> (time: Microseconds, event: Event)? {
        guard count > 0 else { return nil }
        let first = heap[0]
        count -= 1
        if count > 0 { sink(heap[count]) }
        return (first.word >> Self.orderBits, first.event)
    }

    /// The message of an event, which is over with that.
    mutating func takeMessage(_ event: Event) -> Message {
        invariant(event.kind == .message, "the event brings a message")
        freePlaces.append(Int(event.number))
        return messages[Int(event.number)]
    }

    /// Puts `node` in at the root.
    private mutating func sink(_ node: Node) {
        var parent = 0
        while true {
            let child = 4 * parent + 1
            guard child < count else { break }
            var least = child
            var word = heap[child].word
            for other in child + 1..<min(child + 4, max(count, child + 1)) where heap[other].word < word {
                least = other
                word = heap[other].word
            }
            guard word < node.word else { break }
            heap[parent] = heap[least]
            parent = least
        }
        heap[parent] = node
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Node>.allocate(capacity: 2 * capacity)
        larger.moveInitialize(from: heap, count: count)
        heap.deallocate()
        heap = larger
        capacity *= 2
    }
}
