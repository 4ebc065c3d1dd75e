import Glibc
import MPaxosInvariants

/// Which of a thread's sockets may have something to receive, learned with one system call for all of them.
///
/// libzmq's own poll, and every receive that finds nothing, asks the kernel once a socket; where a few sockets are
/// polled between a few messages, that is most of the work. A socket's descriptor (ZMQ_FD) becomes readable when
/// something happened to the socket, and any call on the socket may take that signal in. So here a socket counts as
/// ready from a signal on, or from a send on it, until a receive has found it empty (zmq_getsockopt(3), ZMQ_FD).
///
/// A handle: copying it copies pointers, nothing is counted. Who made it deallocates it. One thread. The sockets must
/// outlive it.
@usableFromInline package struct Watch {
    /// A place in the watch.
    @usableFromInline package struct Item: BitwiseCopyable, Sendable {
        @usableFromInline let index: Int
        @usableFromInline init(index: Int) { self.index = index }
    }

    @usableFromInline let descriptors: UnsafeMutablePointer<pollfd>
    @usableFromInline let flags: UnsafeMutablePointer<Bool>
    private let count: UnsafeMutablePointer<Int>
    private let capacity: Int

    private init(capacity: Int) {
        invariant(capacity > 0, "a watch has room for something")
        self.capacity = capacity
        descriptors = .allocate(capacity: capacity)
        flags = .allocate(capacity: capacity)
        flags.initialize(repeating: false, count: capacity)
        count = .allocate(capacity: 1)
        count.initialize(to: 0)
    }

    /// A watch with room for `capacity` sockets and descriptors.
    package static func allocate(capacity: Int) -> Watch { Watch(capacity: capacity) }

    /// Gives the memory back.
    package func deallocate() {
        descriptors.deallocate()
        flags.deallocate()
        count.deallocate()
    }

    /// Watches a socket, which counts as ready until it was found empty.
    package func add(_ socket: borrowing Socket) -> Item {
        let item = add(fileDescriptor: socket.fileDescriptor)
        flags[item.index] = true
        return item
    }

    /// Watches a plain descriptor.
    package func add(fileDescriptor: Int32) -> Item {
        invariant(count.pointee < capacity, "a watch has room for what is added")
        invariant(fileDescriptor >= 0, "an open file's descriptor is not negative")
        descriptors[count.pointee] = pollfd(fd: fileDescriptor, events: Int16(POLLIN), revents: 0)
        count.pointee += 1
        return Item(index: count.pointee - 1)
    }

    @inlinable package func isReady(_ item: Item) -> Bool { flags[item.index] }

    /// A receive has found the socket empty.
    @inlinable package func wasEmpty(_ item: Item) { flags[item.index] = false }

    /// Something was sent on the socket, which may have taken in a signal meant for the receiver.
    @inlinable package func wasUsed(_ item: Item) { flags[item.index] = true }

    /// Whether `look` passes the item over. A signal stays where it is meanwhile.
    package func hold(_ item: Item, _ isHeld: Bool) {
        let descriptor = descriptors[item.index].fd
        // poll(2) passes over negative descriptors.
        if isHeld != (descriptor < 0) { descriptors[item.index].fd = ~descriptor }
    }

    /// Asks the kernel which items were signalled; they are ready from now on. Waits up to the given time for the
    /// first; returns early after a signal to the process.
    package func look(timeoutMilliseconds: Int) {
        let found = poll(descriptors, nfds_t(count.pointee), Int32(clamping: timeoutMilliseconds))
        invariant(found >= 0 || errno == EINTR, "what is watched is open, and can be waited for")
        guard found > 0 else { return }
        for index in 0..<count.pointee where descriptors[index].revents != 0 { flags[index] = true }
    }
}
