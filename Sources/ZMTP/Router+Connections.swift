import Glibc
import MPaxosCEpoll
import MPaxosInvariants

/// Who comes, who goes, and who has to go.
extension Router {
    func acceptAll(now: UInt64) {
        // Some at a time: those that stand have their turn, too.
        for number in 0..<64 {
            if connectionCount >= limits.mostConnections {
                // One place a turn. Somebody waits for the first; whether others do is seen at the next turn.
                guard number == 0 else { return }
                guard makePlace(now: now) else { return watchListener(false) }
            }
            switch listener.accept() {
            case .nothing: return
            case .exhausted: return pauseAccepting(now: now)
            case .connection(let file):
                guard welcome(file, now: now) else { return pauseAccepting(now: now) }
            }
        }
    }

    private func pauseAccepting(now: UInt64) {
        watchListener(false)
        acceptsAgainAt = now + Self.acceptPause
    }

    private func watchListener(_ accepts: Bool) {
        epoll.watch(listener.file, number: Self.listenerNumber, readable: accepts, writable: false)
    }

    /// False: the connection cannot be watched, and is closed.
    private func welcome(_ file: Int32, now: UInt64) -> Bool {
        if firstFree < 0 { grow() }
        let index = firstFree
        guard epoll.addIfThereIsRoom(file, number: peer(at: index), writable: false) else {
            Glibc.close(file)
            return false
        }
        let connection = connections + Int(index)
        invariant(connection.pointee.state == .free, "a connection on the free list is free")
        firstFree = connection.pointee.nextFree
        connection.pointee.file = file
        connection.pointee.state = .greeting
        connection.pointee.since = now
        connectionCount += 1
        if nextSweep == .max { nextSweep = now + Self.sweepInterval }
        enqueue(Codec.greeting.prefix(Codec.versionEnd), to: index)
        return true
    }

    func breach(_ index: Int32) {
        violations += 1
        close(index)
    }

    func close(_ index: Int32) {
        let connection = connections + Int(index)
        invariant(connection.pointee.state != .free, "a connection is closed once")
        if current == index { current = -1 }
        Glibc.close(connection.pointee.file)
        queued -= connection.pointee.output.count
        held -= connection.pointee.input.count
        released += connection.pointee.input.capacity + connection.pointee.output.capacity
        connection.pointee.input.release()
        connection.pointee.output.release()
        // It may stand on the list of the dirty, which `flush` will find out.
        let isDirty = connection.pointee.isDirty
        connection.pointee = Connection(generation: connection.pointee.generation &+ 1)
        connection.pointee.isDirty = isDirty
        connection.pointee.nextFree = firstFree
        firstFree = index
        if connectionCount == limits.mostConnections { watchListener(true) }
        connectionCount -= 1
    }

    // MARK: The table

    func peer(at index: Int32) -> Peer {
        Peer(connections[Int(index)].generation) << 32 | Peer(UInt32(bitPattern: index))
    }

    func index(of peer: Peer) -> Int32? {
        let index = Int(peer & 0xFFFF_FFFF)
        guard index < capacity, connections[index].state != .free,
            connections[index].generation == UInt32(truncatingIfNeeded: peer >> 32)
        else { return nil }
        return Int32(index)
    }

    private func grow() {
        let larger = capacity * 2
        let fresh = UnsafeMutablePointer<Connection>.allocate(capacity: larger)
        fresh.update(from: connections, count: capacity)
        connections.deallocate()
        connections = fresh
        let list = UnsafeMutablePointer<Int32>.allocate(capacity: larger)
        list.update(from: dirty, count: dirtyCount)
        dirty.deallocate()
        dirty = list
        let first = capacity
        capacity = larger
        addFree(from: first)
    }

    func addFree(from first: Int) {
        for index in (first..<capacity).reversed() {
            (connections + index).initialize(to: Connection())
            connections[index].nextFree = firstFree
            firstFree = Int32(index)
        }
    }

    // MARK: Who has to go

    /// Ends a connection for the sake of one that waits: of those that shake hands the oldest, else of those that have
    /// asked nothing for a second or more the one that has longest. False: all are in use.
    private func makePlace(now: UInt64) -> Bool {
        var place: (index: Int32, rank: UInt64) = (-1, 0)
        for index in 0..<capacity where connections[index].state != .free {
            let connection = connections + index
            let rank: UInt64
            if connection.pointee.state != .up {
                // Who is quick is let through, however many come.
                guard now >= connection.pointee.since + Self.quickHandshake else { continue }
                rank = .max - connection.pointee.since
            } else {
                guard connection.pointee.outstanding == 0, connection.pointee.idleSweeps >= 2 else { continue }
                rank = UInt64(connection.pointee.idleSweeps)
            }
            if rank > place.rank { place = (Int32(index), rank) }
        }
        guard place.index >= 0 else { return false }
        evictions += 1
        close(place.index)
        return true
    }

    /// Drops connections with unfinished messages, until what all together hold is within the bound: first those whose
    /// messages get on no more, by bytes times age; then of those that began last the largest. Else of many that send
    /// slowly each would be dropped before its end, and none would come to it.
    func shed() {
        let bound = limits.mostHeldTogether - limits.mostHeldTogether / 64
        while held > bound {
            var stalled: (index: Int32, cost: Int) = (-1, 0)
            var youngest: (index: Int32, age: Int, count: Int) = (-1, .max, 0)
            for index in 0..<capacity where connections[index].state != .free && !connections[index].input.isEmpty {
                let (count, age) = (connections[index].input.count, Int(connections[index].unfinishedSweeps))
                if connections[index].isStalled {
                    if count * (1 + age) > stalled.cost { stalled = (Int32(index), count * (1 + age)) }
                } else if age < youngest.age || age == youngest.age && count > youngest.count {
                    youngest = (Int32(index), age, count)
                }
            }
            let victim = stalled.index >= 0 ? stalled.index : youngest.index
            invariant(victim >= 0, "what is held is held for some connection")
            breach(victim)
        }
    }

    /// Once a second. Ends those that take too long, asks those that are silent, gives back memory that is not in use.
    func keepTime(now: UInt64) {
        if now >= acceptsAgainAt {
            acceptsAgainAt = .max
            watchListener(true)
        }
        guard now >= nextSweep else { return }
        for index in 0..<capacity where connections[index].state != .free { sweep(Int32(index), now: now) }
        // Some may idle by now that did not when the place of one was wanted.
        if connectionCount >= limits.mostConnections, acceptsAgainAt == .max { watchListener(true) }
        giveBack()
        nextSweep = connectionCount > 0 || released >= Self.worthGivingBack ? now + Self.sweepInterval : .max
    }

    /// Times of silence count in sweeps, and not by the clock: a lane that stood still for long has heard nobody, and
    /// must not take that for their silence.
    private func sweep(_ index: Int32, now: UInt64) {
        let connection = connections + Int(index)
        if connection.pointee.state != .up, now >= connection.pointee.since + limits.handshakeTime {
            return breach(index)
        }
        // It cannot be answered, and nothing of it is left to be read: an event would have told.
        if connection.pointee.isEnding, index != current { return close(index) }
        connection.pointee.countSweep()
        if Int(connection.pointee.unfinishedSweeps) > limits.messageSeconds { return breach(index) }
        if connection.pointee.state == .up {
            let silence = Int(connection.pointee.silentSweeps)
            let isHeldTo = connection.pointee.dialect == .zmtp31 && silence > limits.silenceSeconds
            if isHeldTo || silence > connection.pointee.timeToLive {
                silences += 1
                return close(index)
            }
            if connection.pointee.dialect == .zmtp31, silence > 0,
                silence.isMultiple(of: max(1, limits.silenceSeconds / 3))
            {
                enqueue(Codec.ping, to: index)
            }
        }
        if !connection.pointee.wasActive {
            connection.pointee.input.releaseIfIdle(above: Self.keptBuffer)
            connection.pointee.output.releaseIfIdle(above: Self.keptBuffer)
        }
        connection.pointee.wasActive = false
    }

    /// What was freed stays with the allocator until it is told: then a crowd's memory would never come back. Not while
    /// large buffers come and go, when it would be fetched again at once.
    private func giveBack() {
        if released == releasedBefore, released > 0 {
            if released >= Self.worthGivingBack { _ = malloc_trim(0) }
            released = 0
        }
        releasedBefore = released
    }
}
