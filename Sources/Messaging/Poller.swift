import MPaxosCZeroMQ
import MPaxosInvariants

/// zmq_poll over sockets and plain file descriptors; its items are allocated once. (libzmq keeps up to 16 items on the
/// stack while it polls, more it allocates each time.)
///
/// Owned by one thread at a time. The sockets must outlive it or not be polled any more.
package struct Poller: ~Copyable, @unchecked Sendable {
    private let items: UnsafeMutablePointer<zmq_pollitem_t>
    private let capacity: Int
    private var count = 0

    /// Set once a `wait` found the context shut down.
    package private(set) var isTerminated = false

    package init(capacity: Int) {
        invariant(capacity > 0, "a poller has room for an item")
        self.capacity = capacity
        items = .allocate(capacity: capacity)
        items.initialize(repeating: zmq_pollitem_t(), count: capacity)
    }

    deinit { items.deallocate() }

    /// Adds a socket; returns the index to ask by.
    package mutating func add(_ socket: borrowing Socket, reading: Bool = true, writing: Bool = false) -> Int {
        add(zmq_pollitem_t(socket: socket.handle, fd: -1, events: events(reading, writing), revents: 0))
    }

    /// Adds a plain file descriptor; returns the index to ask by.
    package mutating func add(fileDescriptor: Int32, reading: Bool = true, writing: Bool = false) -> Int {
        invariant(fileDescriptor >= 0, "an open file's descriptor is not negative")
        return add(zmq_pollitem_t(socket: nil, fd: fileDescriptor, events: events(reading, writing), revents: 0))
    }

    private mutating func add(_ item: zmq_pollitem_t) -> Int {
        invariant(count < capacity, "a poller has room for what is added")
        items[count] = item
        count += 1
        return count - 1
    }

    private func events(_ reading: Bool, _ writing: Bool) -> Int16 {
        Int16((reading ? ZMQ_POLLIN : 0) | (writing ? ZMQ_POLLOUT : 0))
    }

    /// Changes what item `index` is watched for; neither: not at all, as when its input is held back.
    package mutating func watch(_ index: Int, reading: Bool, writing: Bool = false) {
        invariant(index >= 0 && index < count, "an item was added to the poller")
        items[index].events = events(reading, writing)
        items[index].revents = 0
    }

    /// Waits until something is ready, or for `timeoutMilliseconds` (0: only looks; -1: for ever). The number of items
    /// ready; 0 after a timeout, a signal (the caller looks at its clock and flags, and comes back), or a shutdown.
    package mutating func wait(timeoutMilliseconds: Int) -> Int {
        let ready = zmq_poll(items, Int32(count), timeoutMilliseconds)
        if ready >= 0 { return Int(ready) }
        let code = lastError()
        if code == czmq_ETERM { isTerminated = true }
        invariant(code == EINTR || code == czmq_ETERM, "what is polled is open, and can be waited for")
        for index in 0..<count { items[index].revents = 0 }
        return 0
    }

    /// Whether the last `wait` found item `index` readable; a plain descriptor also when it is broken or closed by its
    /// peer.
    package func isReadable(_ index: Int) -> Bool {
        invariant(index >= 0 && index < count, "an item was added to the poller")
        return items[index].revents & Int16(ZMQ_POLLIN | ZMQ_POLLERR) != 0
    }

    /// Whether the last `wait` found item `index` writable.
    package func isWritable(_ index: Int) -> Bool {
        invariant(index >= 0 && index < count, "an item was added to the poller")
        return items[index].revents & Int16(ZMQ_POLLOUT) != 0
    }
}
