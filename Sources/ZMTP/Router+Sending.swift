import Glibc
import MPaxosInvariants

extension Router {
    /// Room for a message of `count` bytes, heads of frames included, which the caller fills in at once: it leaves with
    /// the next
    /// `flush`. Nil when the peer is gone, or does not read what it was sent.
    package func reserve(_ count: Int, for peer: Peer) -> UnsafeMutableRawPointer? {
        guard let index = index(of: peer) else { return nil }
        let connection = connections + Int(index)
        guard connection.pointee.state == .up, !connection.pointee.isEnding else { return nil }
        if connection.pointee.output.count + count > limits.mostQueued, !connection.pointee.isBlocked {
            // It may be that it reads as fast as it can, and only the turn was long.
            send(index)
            guard !connection.pointee.isEnding else { return nil }
        }
        let waiting = connection.pointee.output.count
        if waiting > 0 {
            guard waiting + count <= limits.mostQueued else { return nil }
            if connection.pointee.isBlocked, waiting + count > limits.share,
                queued + count > limits.mostQueuedTogether
            {
                return nil
            }
        }
        return extend(index, by: count)
    }

    private func extend(_ index: Int32, by count: Int) -> UnsafeMutableRawPointer {
        let connection = connections + Int(index)
        let place = connection.pointee.output.reserve(count)
        connection.pointee.output.commit(count)
        connection.pointee.wasActive = true
        queued += count
        if !connection.pointee.isDirty {
            connection.pointee.isDirty = true
            dirty[dirtyCount] = index
            dirtyCount += 1
        }
        return place
    }

    func enqueue(_ bytes: some Collection<UInt8>, to index: Int32) {
        // Greeting, heartbeats and the answers to commands are few bytes; a peer that asks for many and reads none is
        // cut off.
        let connection = connections + Int(index)
        guard connection.pointee.output.count < limits.mostQueued, !connection.pointee.isEnding,
            !connection.pointee.isBlocked || queued < limits.mostQueuedTogether
        else { return }
        let place = UnsafeMutableRawBufferPointer(start: extend(index, by: bytes.count), count: bytes.count)
        place.copyBytes(from: bytes)
    }

    /// Sends what was written since the last time, each peer's in one system call.
    package func flush() {
        for at in 0..<dirtyCount {
            let index = dirty[at]
            connections[Int(index)].isDirty = false
            // The kernel said that it takes no more: it says so when it does.
            if connections[Int(index)].state != .free, !connections[Int(index)].isBlocked { send(index) }
        }
        dirtyCount = 0
        receivedThisTurn = 0
    }

    func send(_ index: Int32) {
        let connection = connections + Int(index)
        let before = connection.pointee.output.count
        let outcome = connection.pointee.send()
        if outcome == .lost {
            // What the peer said before it went has still to be read: a last request is none the less a request.
            // Nothing more can be said to it, and `read` finds the end.
            connection.pointee.isEnding = true
            connection.pointee.output.removeAll()
        }
        queued -= before - connection.pointee.output.count
        invariant(queued >= 0, "no more is sent than was queued")
        if outcome != .blocked, connection.pointee.output.capacity > Self.keptBusyBuffer {
            released += connection.pointee.output.capacity
            connection.pointee.output.release()
        }
        let isBlocked = outcome == .blocked
        if isBlocked != connection.pointee.isBlocked {
            connection.pointee.isBlocked = isBlocked
            epoll.watch(connection.pointee.file, number: peer(at: index), writable: isBlocked)
        }
    }
}
