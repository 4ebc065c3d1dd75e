import MPaxosConsensus
import MPaxosInvariants

/// What will happen, in the order of the times; of equal times, in the order in which it was put down.
struct Agenda {
    enum Event {
        /// A lane of a host may have something to do: `number` tells this entry from those that were overtaken.
        case turn(host: Int, lane: Int, number: UInt64)
        /// Something happens to the connections between hosts, under the number that they gave it.
        case connection(Int)
        /// What a client sent reaches the port of a host.
        case request(ClusterClient.Name, host: Int, header: [UInt8], body: [UInt8])
        /// What a host answered reaches the client.
        case reply(ClusterClient.Name, host: Int, header: [UInt8], body: [UInt8])
        /// A client has waited, or thought, for long enough: `number` tells this entry from those that were overtaken.
        case client(Int, number: UInt64)
        /// The host does what was ordered at its desk; `life` counts its starts.
        case desk(host: Int, life: Int)
        case start(host: Int)
        case fault
        /// The state of a replica drifts.
        case drift
        /// Somebody who is no replica sends something.
        case stranger
        /// What a frame has become on its way.
        case damaged([UInt8], from: Int, to: Int)
        /// What a fault did ends.
        case end(number: Int)
    }

    private struct Entry {
        var time: Microseconds
        var order: UInt64
        var event: Event
    }

    private var heap: [Entry] = []
    private var order: UInt64 = 0

    var nextTime: Microseconds? { heap.first?.time }

    mutating func put(_ event: Event, at time: Microseconds) {
        order += 1
        let entry = Entry(time: time, order: order, event: event)
        heap.append(entry)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard Self.isBefore(entry, heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    mutating func next() -> (time: Microseconds, event: Event)? {
        guard let first = heap.first else { return nil }
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in 2 * parent + 1...2 * parent + 2
            where child < heap.count && Self.isBefore(heap[child], heap[least]) {
                least = child
            }
            guard least != parent else { break }
            heap.swapAt(parent, least)
            parent = least
        }
        return (first.time, first.event)
    }

    private static func isBefore(_ a: Entry, _ b: Entry) -> Bool { (a.time, a.order) < (b.time, b.order) }
}
