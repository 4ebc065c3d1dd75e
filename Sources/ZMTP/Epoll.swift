import Glibc
import MPaxosCEpoll
import MPaxosInvariants

/// An epoll set over file descriptors that are known by numbers of their owner's choice. Level-triggered.
package struct Epoll: ~Copyable, @unchecked Sendable {
    // Unchecked: used by one thread at a time.

    /// To be watched by others: readable while the set has an event.
    package let descriptor: Int32
    private let events: UnsafeMutablePointer<epoll_event>
    private static let capacity = 1024

    package init() throws(SocketError) {
        descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard descriptor >= 0 else {
            let code = errno
            throw SocketError("cannot make an epoll set: \(systemMessage(code))", code: code)
        }
        events = .allocate(capacity: Epoll.capacity)
        events.initialize(repeating: epoll_event(), count: Epoll.capacity)
    }

    deinit {
        Glibc.close(descriptor)
        events.deallocate()
    }

    /// Adds a descriptor; it leaves the set when it is closed.
    package func add(_ file: Int32, number: UInt64, readable: Bool = true, writable: Bool) {
        let isAdded = addIfThereIsRoom(file, number: number, readable: readable, writable: writable)
        invariant(isAdded, "a set has room for a descriptor of the replica's own")
    }

    /// The same; false when the user has no watches left, or the system no memory.
    func addIfThereIsRoom(_ file: Int32, number: UInt64, readable: Bool = true, writable: Bool) -> Bool {
        if control(EPOLL_CTL_ADD, file, number, readable, writable) { return true }
        invariant(errno == ENOSPC || errno == ENOMEM, "an open descriptor is added, but for want of memory or watches")
        return false
    }

    package func watch(_ file: Int32, number: UInt64, readable: Bool = true, writable: Bool) {
        let isChanged = control(EPOLL_CTL_MOD, file, number, readable, writable)
        invariant(isChanged, "a descriptor of the set can be changed")
    }

    /// Waits up to `nanoseconds`; returns how many events there are to look at.
    package func wait(nanoseconds: UInt64) -> Int {
        var time = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        var count = epoll_pwait2(descriptor, events, Int32(Epoll.capacity), &time, nil)
        // Kernels before 5.11, and valgrind, know milliseconds only. Rounded down: too early is better than late.
        if count < 0 && errno == ENOSYS {
            let milliseconds = Int32(clamping: nanoseconds / 1_000_000)
            count = epoll_wait(descriptor, events, Int32(Epoll.capacity), milliseconds)
        }
        invariant(count >= 0 || errno == EINTR, "a set of one's own can be waited for")
        return max(0, Int(count))
    }

    /// Returns at once how many events there are to look at.
    package func look() -> Int {
        let count = epoll_wait(descriptor, events, Int32(Epoll.capacity), 0)
        invariant(count >= 0 || errno == EINTR, "a set of one's own can be looked at")
        return max(0, Int(count))
    }

    /// The `index`th event: which descriptor, and whether it can be written (errors and hang-ups count as readable).
    package func event(_ index: Int) -> (number: UInt64, readable: Bool, writable: Bool) {
        invariant(index >= 0 && index < Epoll.capacity, "an event is one of those found")
        let event = events[index]
        let writable = event.events & EPOLLOUT.rawValue != 0
        return (event.data.u64, event.events & ~EPOLLOUT.rawValue != 0, writable)
    }

    /// False: errno tells why not.
    private func control(
        _ operation: Int32, _ file: Int32, _ number: UInt64, _ readable: Bool, _ writable: Bool
    ) -> Bool {
        var event = epoll_event()
        event.events = (readable ? EPOLLIN.rawValue : 0) | (writable ? EPOLLOUT.rawValue : 0)
        event.data.u64 = number
        return epoll_ctl(descriptor, operation, file, &event) == 0
    }
}

/// The operating system's words for an error number.
package func systemMessage(_ number: Int32) -> String {
    String(cString: strerror(number))
}

/// Something that the operating system refused, in a sentence for the person who runs the program.
package struct SocketError: Error, CustomStringConvertible {
    package let description: String
    /// The errno that says the same; EINVAL where there was none.
    package let code: Int32

    package init(_ description: String, code: Int32 = EINVAL) {
        self.description = description
        self.code = code
    }
}
