import Foundation
import Testing

@testable import MPaxosZMTP

/// What a router does when more come than there is room for.
@Suite struct RouterCrowdTests {
    // MARK: The bound

    @Test(arguments: [1, 3, 64, 65])
    func whoComesBeyondTheBoundWaits(most: Int) throws {
        var limits = RouterRig.limits
        limits.mostConnections = most
        let rig = try RouterRig(limits: limits)
        var crowd = try (0..<(most + 2)).map { _ in try RawClient(connectedTo: rig.endpoint) }
        for client in crowd { client.send(Codec.greeting + Codec.ready("REQ")) }
        func isServed(_ client: RawClient) -> Bool {
            client.send(makeFrame([1]))
            return rig.run {
                _ = client.exchange()
                return client.hasHandshake
            }
                && rig.run {
                    _ = client.exchange()
                    return client.nextMessage() == [[1]]
                }
        }
        rig.settle()
        #expect(rig.router.connectionCount == most && !rig.isReadable && rig.router.audit() == [])
        #expect(isServed(crowd[most - 1]))
        // However an ending comes about, one more has its turn, and but one.
        crowd[0].close()
        #expect(isServed(crowd[most]))
        #expect(rig.router.connectionCount == most && !rig.isReadable)
        crowd[most].send([0xFF, 0])  // a breach
        #expect(isServed(crowd[most + 1]))
        #expect(rig.router.connectionCount == most && rig.router.violations == 1)
        // Below the bound nobody waits.
        for client in crowd { client.close() }
        crowd = []
        #expect(rig.run { rig.router.connectionCount == 0 })
        for _ in 0..<most { _ = try rig.open() }
        #expect(rig.router.audit() == [] && !rig.isReadable)
    }

    /// Who holds places and says nothing loses them to those that wait.
    @Test func theSilentMakeRoom() throws {
        var limits = RouterRig.limits
        limits.mostConnections = 10
        let rig = try RouterRig(limits: limits)
        let silent = try (0..<10).map { _ in try rig.connect() }
        let late = try RawClient(connectedTo: rig.endpoint)
        rig.settle()
        #expect(rig.router.connectionCount == 10)
        rig.now += 7_000_000
        rig.settle()
        #expect(rig.run { silent.allSatisfy(\.isClosed) && rig.router.connectionCount == 1 })
        withExtendedLifetime(late) {}
    }

    // MARK: Out of descriptors, out of watches

    /// On a thread with a table of descriptors of its own, so that nobody else runs out of them.
    @Test(.enabled(if: OwnDescriptors.canBeFilled))
    func outOfDescriptors() throws {
        let outcome = OwnDescriptors.run { fill, free in
            var wrong: [String] = []
            func check(_ holds: Bool, _ what: String) {
                if !holds { wrong.append(what) }
            }
            let rig = try RouterRig()
            let standing = try rig.open()
            let late = try RawClient(connectedTo: rig.endpoint)
            let later = try RawClient(connectedTo: rig.endpoint)
            fill()
            check(rig.isReadable, "two wait")
            rig.settle()
            // They wait on, and nobody spins for them.
            check(rig.router.connectionCount == 1 && !rig.isReadable, "no more than there was room for")
            check(rig.router.nextDeadline == rig.now + 100_000, "a pause")
            check(rig.echoes(standing, [[], pattern(300)]), "who has a connection keeps it")
            rig.now += 99_999
            rig.settle()
            check(rig.router.connectionCount == 1, "not yet")
            rig.now += 1
            rig.settle()
            check(rig.router.connectionCount == 1 && !rig.isReadable, "still none")
            free(1)
            rig.now += 100_000
            check(rig.run { rig.router.connectionCount == 2 }, "one")
            rig.settle()
            check(rig.router.connectionCount == 2 && !rig.isReadable, "but one")
            free(10)
            rig.now += 100_000
            check(rig.run { rig.router.connectionCount == 3 }, "all")
            for client in [late, later] { client.send(Codec.greeting + Codec.ready("REQ") + makeFrame([1])) }
            check(rig.run { rig.arrivals.count == 3 }, "and they are heard")
            check(rig.router.audit() == [] && rig.router.violations == 0, "accounts")
            return wrong
        }
        #expect(outcome == [])
    }

    /// The same, with an epoll set that takes no descriptor from some number on.
    @Test(.enabled(if: OwnDescriptors.canBeFilled && Watches.canBeRefused))
    func outOfWatches() throws {
        let outcome = OwnDescriptors.run { _, _ in
            var wrong: [String] = []
            func check(_ holds: Bool, _ what: String) {
                if !holds { wrong.append(what) }
            }
            let rig = try RouterRig()
            let standing = try rig.open()
            let spare = dup(2)
            let late = try RawClient(connectedTo: rig.endpoint)
            let later = try RawClient(connectedTo: rig.endpoint)
            let next = later.file + 1
            check(Watches.refuse(from: next), "they can be refused")
            rig.settle()
            _ = late.exchange()
            check(late.isClosed && rig.router.connectionCount == 1, "who cannot be watched is let go")
            check(!rig.isReadable && rig.router.nextDeadline == rig.now + 100_000, "a pause")
            check(rig.echoes(standing, [[], pattern(300)]), "who has a connection keeps it")
            close(spare)
            rig.now += 99_999
            rig.settle()
            check(rig.router.connectionCount == 1, "not yet")
            rig.now += 1
            check(rig.run { rig.router.connectionCount == 2 }, "then the next")
            later.send(Codec.greeting + Codec.ready("REQ") + makeFrame([1]))
            check(rig.run { rig.arrivals.last?.frames == [[1]] }, "and it is heard")
            check(dup(2) == next, "no descriptor is left behind")
            check(rig.router.audit() == [] && rig.router.violations == 0, "accounts")
            return wrong
        }
        #expect(outcome == [])
    }
}

/// A thread whose descriptors are no other thread's.
private enum OwnDescriptors {
    private static let unshare = dlsym(nil, "unshare").map {
        unsafeBitCast($0, to: (@convention(c) (Int32) -> Int32).self)
    }
    private static let closeRange = dlsym(nil, "close_range").map {
        unsafeBitCast($0, to: (@convention(c) (UInt32, UInt32, Int32) -> Int32).self)
    }

    /// Whether there can be such a thread, and few enough descriptors that it can use them up.
    static var canBeFilled: Bool {
        var limit = rlimit()
        return unshare != nil && closeRange != nil
            && getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
            && limit.rlim_cur <= 1 << 17
    }

    /// - Parameter body: is handed what uses all descriptors up, and what gives some of them back.
    static func run(_ body: @escaping @Sendable (_ fill: () -> Void, _ free: (Int) -> Void) throws -> [String])
        -> [String]
    {
        nonisolated(unsafe) var outcome = ["it goes on and on"]
        let done = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            defer { done.signal() }
            let cloneFiles: Int32 = 0x400
            guard unshare!(cloneFiles) == 0, closeRange!(3, .max, 0) == 0 else {
                outcome = ["no table of its own"]
                return
            }
            var spare: [Int32] = []
            func fill() {
                while true {
                    let file = dup(2)
                    guard file >= 0 else { break }
                    spare.append(file)
                }
            }
            do {
                outcome = try body(fill) { for _ in 0..<$0 { close(spare.removeLast()) } }
            } catch {
                outcome = ["\(error)"]
            }
        }
        guard done.wait(timeout: .now() + 60) == .success else { return ["it goes on and on"] }
        return outcome
    }
}

/// Lets a thread's epoll sets refuse what is added to them, as they do when the user has no watches left.
private enum Watches {
    private static let control = dlsym(nil, "prctl").map {
        unsafeBitCast($0, to: (@convention(c) (Int32, UInt, UInt, UInt, UInt) -> Int32).self)
    }

    /// Whether this system filters system calls.
    static var canBeRefused: Bool {
        let getSeccomp: Int32 = 21
        return control.map { $0(getSeccomp, 0, 0, 0, 0) >= 0 } ?? false
    }

    /// For good, for the calling thread: descriptors from `file` on.
    static func refuse(from file: Int32) -> Bool {
        #if arch(x86_64)
            let epollControl: UInt32 = 233
        #else
            let epollControl: UInt32 = 21
        #endif
        let add: UInt32 = 1
        // A program of BPF over `struct seccomp_data`, whose words are the call's number at 0 and its arguments from 16
        // on.
        func load(_ offset: UInt32) -> UInt64 { 0x20 | UInt64(offset) << 32 }
        func unless(_ test: UInt64, _ value: UInt32, skip count: UInt64) -> UInt64 {
            test | count << 24 | UInt64(value) << 32
        }
        func end(_ action: UInt32) -> UInt64 { 0x06 | UInt64(action) << 32 }
        let (equal, atLeast): (UInt64, UInt64) = (0x15, 0x35)
        let program = [
            load(0), unless(equal, epollControl, skip: 5),
            load(24), unless(equal, add, skip: 3),
            load(32), unless(atLeast, UInt32(file), skip: 1),
            end(0x5_0000 | UInt32(ENOSPC)), end(0x7FFF_0000),
        ]
        let (setNoNewPrivileges, setSeccomp): (Int32, Int32) = (38, 22)
        return program.withUnsafeBufferPointer { steps in
            // `struct sock_fprog`
            let words = [UInt(steps.count), UInt(bitPattern: steps.baseAddress)]
            return words.withUnsafeBufferPointer {
                control!(setNoNewPrivileges, 1, 0, 0, 0) == 0
                    && control!(setSeccomp, 2, UInt(bitPattern: $0.baseAddress), 0, 0) == 0
            }
        }
    }
}
