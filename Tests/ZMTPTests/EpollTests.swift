import Glibc
import Testing

@testable import MPaxosZMTP

@Suite struct EpollTests {
    /// Two ends of a connection.
    private let ends: (Int32, Int32)

    init() throws {
        var files: [Int32] = [0, 0]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &files) == 0)
        ends = (files[0], files[1])
    }

    private static let number = UInt64.max - 1

    private func closeEnds() {
        close(ends.0)
        close(ends.1)
    }

    @Test func eventsTellNumbersAndKinds() throws {
        defer { closeEnds() }
        let set = try Epoll()
        set.add(ends.0, number: Self.number, writable: false)
        #expect(set.look() == 0)
        send(ends.1, "x", 1, 0)
        #expect(set.wait(nanoseconds: 10_000_000_000) == 1)
        #expect(set.event(0) == (Self.number, true, false))
        // Level-triggered.
        #expect(set.look() == 1)
        set.watch(ends.0, number: 7, writable: true)
        #expect(set.look() == 1)
        #expect(set.event(0) == (7, true, true))
        set.watch(ends.0, number: 8, readable: false, writable: true)
        #expect(set.look() == 1)
        #expect(set.event(0) == (8, false, true))
        set.watch(ends.0, number: 9, readable: false, writable: false)
        #expect(set.look() == 0)
    }

    @Test func theEndOfAConnectionIsReadable() throws {
        defer { close(ends.0) }
        let set = try Epoll()
        set.add(ends.0, number: 1, readable: false, writable: false)
        close(ends.1)
        #expect(set.look() == 1)
        #expect(set.event(0) == (1, true, false))
    }

    @Test func aSetIsReadableWhileItHasAnEvent() throws {
        defer { closeEnds() }
        let inner = try Epoll()
        let outer = try Epoll()
        inner.add(ends.0, number: 1, writable: false)
        outer.add(inner.descriptor, number: 2, writable: false)
        #expect(outer.look() == 0)
        send(ends.1, "x", 1, 0)
        #expect(outer.look() == 1)
        #expect(outer.event(0).number == 2)
    }

    @Test func waitsEnd() throws {
        defer { closeEnds() }
        let set = try Epoll()
        set.add(ends.0, number: 1, writable: false)
        let clock = ContinuousClock()
        let time = clock.measure { while set.wait(nanoseconds: 3_000_000) > 0 {} }
        #expect(time > .milliseconds(1))
    }
}
