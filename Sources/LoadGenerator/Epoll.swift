import CEpoll
import Glibc

/// An epoll set over file descriptors that are known by small numbers.
struct Epoll: ~Copyable {
    private let descriptor: Int32
    private let events: UnsafeMutablePointer<epoll_event>
    private static let capacity = 1024

    init() throws(BenchError) {
        descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard descriptor >= 0 else { throw BenchError(.system, "epoll_create1: \(systemMessage(errno))") }
        events = .allocate(capacity: Epoll.capacity)
        events.initialize(repeating: epoll_event(), count: Epoll.capacity)
    }

    deinit {
        Glibc.close(descriptor)
        events.deallocate()
    }

    /// Adds a descriptor; it leaves the set when it is closed.
    func add(_ file: Int32, number: Int, writable: Bool) {
        control(EPOLL_CTL_ADD, file, number, writable)
    }

    func watch(_ file: Int32, number: Int, writable: Bool) {
        control(EPOLL_CTL_MOD, file, number, writable)
    }

    /// Waits up to `nanoseconds`; returns how many events there are to look at.
    func wait(nanoseconds: UInt64) -> Int {
        var time = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        var count = epoll_pwait2(descriptor, events, Int32(Epoll.capacity), &time, nil)
        // Kernels before 5.11, and valgrind, know milliseconds only. Rounded down: too early is better than late.
        if count < 0 && errno == ENOSYS {
            let milliseconds = Int32(clamping: nanoseconds / 1_000_000)
            count = epoll_wait(descriptor, events, Int32(Epoll.capacity), milliseconds)
        }
        precondition(count >= 0 || errno == EINTR, "waiting failed on a set of its own")
        return max(0, Int(count))
    }

    /// The `index`th event: which descriptor, and whether it can be written (errors and hang-ups count as readable).
    @inline(__always) func event(_ index: Int) -> (number: Int, readable: Bool, writable: Bool) {
        let event = events[index]
        let writable = event.events & EPOLLOUT.rawValue != 0
        return (Int(event.data.u32), event.events & ~EPOLLOUT.rawValue != 0, writable)
    }

    private func control(_ operation: Int32, _ file: Int32, _ number: Int, _ writable: Bool) {
        var event = epoll_event()
        event.events = EPOLLIN.rawValue | (writable ? EPOLLOUT.rawValue : 0)
        event.data.u32 = UInt32(number)
        precondition(epoll_ctl(descriptor, operation, file, &event) == 0, "epoll_ctl failed on an open descriptor")
    }
}

/// The operating system's words for an error number.
func systemMessage(_ number: Int32) -> String {
    String(cString: strerror(number))
}
