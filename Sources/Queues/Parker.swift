import MPaxosCSupport
import MPaxosInvariants
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Musl
#endif

/// How a lane's thread sleeps when it has nothing to do, and how other threads wake it.
///
/// The lane, when it found nothing:
/// ```
/// parker.prepareToPark()
/// if any input ring is not empty { parker.cancelPark() }
/// else if parker.park() {                       // false: woken meanwhile
///     poller.wait(...)                          // its set contains parker.fileDescriptor
///     parker.drain(signalled: poller.isReadable(index))
/// }
/// // poll the stages again
/// ```
/// A producer: `if ring.publish() { parker.wake() }`.
///
/// No wake-up is lost. The producer publishes, fences, then reads the state; the lane writes the state, fences, then
/// reads the rings (Dekker's pattern): one of the two sees the other. `wake` costs that fence and a load while the lane
/// runs, and writes the eventfd only when the lane sleeps or is committed to.
///
/// A handle: copying it copies a pointer. Lane's thread only: all but `wake`, which any thread may call.
@usableFromInline
package struct Parker: @unchecked Sendable {
    // Unchecked: the state word is atomic, the descriptor never changes.

    @usableFromInline
    enum State {
        @usableFromInline static let running: UInt32 = 0
        /// The lane looks at its rings a last time. A waker turns it back to running: no system call needed.
        @usableFromInline static let parking: UInt32 = 1
        /// The lane sleeps in its poll, or is about to. A waker must make the descriptor readable.
        @usableFromInline static let parked: UInt32 = 2
    }

    @usableFromInline let state: UnsafeMutablePointer<Atomic<UInt32>>

    /// Belongs into the lane's poll set: readable when the lane was woken.
    @usableFromInline package let fileDescriptor: Int32

    /// Nil when the process is out of file descriptors (errno says so).
    package static func allocate() -> Parker? {
        let descriptor = csupport_eventfd()
        return descriptor < 0 ? nil : Parker(fileDescriptor: descriptor)
    }

    /// One without a descriptor, for lanes that are no threads: who runs them looks at `isParked`.
    package static func withoutDescriptor() -> Parker { Parker(fileDescriptor: -1) }

    private init(fileDescriptor: Int32) {
        self.fileDescriptor = fileDescriptor
        // A line of its own: every producer reads it after each publication.
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: CacheLine.separation, alignment: CacheLine.separation)
        state = memory.bindMemory(to: Atomic<UInt32>.self, capacity: 1)
        state.initialize(to: Atomic(State.running))
    }

    /// Closes the descriptor. Nobody may use the parker any more.
    package func deallocate() {
        if fileDescriptor >= 0 { close(fileDescriptor) }
        UnsafeMutableRawPointer(state).deallocate()
    }

    /// Lane: announces that it is about to sleep. Look at every input once more after this, then `park` or
    /// `cancelPark`.
    @inlinable
    package func prepareToPark() {
        state.pointee.store(State.parking, ordering: .relaxed)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    /// Lane: found something after all.
    @inlinable
    package func cancelPark() {
        // A waker that turned the state back to running already did so without touching the descriptor.
        state.pointee.store(State.running, ordering: .relaxed)
    }

    /// Lane: commits to sleeping. False: it was woken since `prepareToPark` and must not sleep.
    @inlinable
    package func park() -> Bool {
        let change = state.pointee.compareExchange(
            expected: State.parking, desired: State.parked, ordering: .acquiringAndReleasing)
        invariant(
            change.exchanged || change.original == State.running, "a lane announces that it will park before it does")
        return change.exchanged
    }

    /// Lane: runs again after `park`, woken or not. `signalled`: whether the poll found `fileDescriptor` readable.
    @inlinable
    package func drain(signalled: Bool = true) {
        // A waker that has won but not yet written the descriptor will make one later poll return early: harmless.
        state.pointee.store(State.running, ordering: .relaxed)
        if signalled { csupport_eventfd_clear(fileDescriptor) }
    }

    /// Any thread: makes the lane look at its inputs. Call after publishing.
    @inlinable
    package func wake() {
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if state.pointee.load(ordering: .relaxed) != State.running { wakeSlowly() }
    }

    @usableFromInline
    func wakeSlowly() {
        if state.pointee.compareExchange(
            expected: State.parking, desired: State.running, ordering: .acquiringAndReleasing
        ).exchanged {
            return
        }
        // Between the two the lane may have gone from parking to parked; or woken up, then it looks by itself.
        if state.pointee.compareExchange(
            expected: State.parked, desired: State.running, ordering: .acquiringAndReleasing
        ).exchanged {
            if fileDescriptor >= 0 { csupport_eventfd_signal(fileDescriptor) }
        }
    }

    /// Whether the lane has parked, and nobody has woken it since.
    package var isParked: Bool { state.pointee.load(ordering: .acquiring) == State.parked }
}
