import MPaxosFrames
import MPaxosInvariants
import MPaxosQueues
import MPaxosWire

/// The commands that wait for their place in the log: those of this replica's own clients, and the runs that followers
/// forwarded. Copies each once, from the frame it came in to where it shall lie in a batch.
///
/// Batches form by themselves: whatever has gathered while the pipeline was busy makes the next one.
package struct Batcher: ~Copyable {
    /// Bytes at which a batch closes. A larger command makes a batch of its own.
    let batchBytes: Int
    /// Microseconds that a batch waits for company.
    let delay: UInt64

    private let origin: UInt16
    private let submissions: SPSCRing<Submission>
    private let forwarded: SPSCRing<RawFrame>
    private let bodies: ByteRing
    private var forwardedBytes = 0
    private static let mostForwardedFrames = 4096
    /// Frames of followers are held up to this many bytes; more are dropped, and their clients try again.
    private static let mostForwardedBytes = 64 << 20
    /// Commands, and runs of followers, that are larger than `largeFrom`: each is a batch of its own, on a road of its
    /// own.
    private let large: SPSCRing<LargeBatch>
    /// Bytes beyond which a command is large, see `Dissemination`.
    var largeFrom = Int.max
    private let largeFrame = Frame()

    /// The command taken from the ring that did not fit into the last batch.
    private var carried: Submission?
    private let run = Frame()
    private var holdsRun = false
    /// Whether the next batch begins with the runs of followers, or with the commands of this replica's own clients: in
    /// turn, so that neither waits for ever where there is always enough of the other.
    private var runsFirst = true
    /// When the oldest command began to wait; nil when none does.
    private var waitingSince: UInt64?

    package init(origin: Int, batchBytes: Int, delay: UInt64, rings: Rings) {
        invariant(batchBytes >= CommandRecord.headerSize, "a batch has room for a command")
        self.origin = UInt16(origin)
        self.batchBytes = batchBytes
        self.delay = delay
        submissions = rings.submissions
        bodies = rings.bodies
        forwarded = .allocate(capacity: Self.mostForwardedFrames)
        large = .allocate(capacity: Self.mostForwardedFrames)
    }

    deinit {
        forwarded.deallocate()
        large.deallocate()
    }

    /// Takes the frame of a FORWARD whose run was checked. False when too much waits already; the frame is then gone.
    mutating func takeForwarded(_ frame: borrowing Frame) -> Bool {
        let size = frame.count
        guard forwardedBytes + size <= Self.mostForwardedBytes, !forwarded.isFull else { return false }
        if size - PeerHeader.size > largeFrom, !large.isFull {
            setAside(LargeBatch(frame, isOwn: false))
            forwardedBytes += size
            return true
        }
        let pushed = forwarded.push(frame.take())
        forwarded.publish()
        invariant(pushed, "a ring with room takes a run")
        forwardedBytes += size
        return true
    }

    /// Drops what followers forwarded: this replica does not lead any more. Their clients try again.
    mutating func dropForwarded() -> Int {
        var count = holdsRun ? 1 : 0
        run.clear()
        holdsRun = false
        while let frame = forwarded.pop() {
            frame.discard()
            count += 1
        }
        for _ in 0..<large.count {
            guard let batch = large.pop() else { break }
            if batch.isOwn {
                setAside(batch)
            } else {
                batch.frame.discard()
                count += 1
            }
        }
        forwardedBytes = 0
        return count
    }

    /// Lets go of all frames, for a stop.
    mutating func discard() {
        _ = dropForwarded()
        while let batch = large.pop() { batch.frame.discard() }
    }

    // MARK: Large commands

    private mutating func setAside(_ batch: LargeBatch) {
        let pushed = large.push(batch)
        large.publish()
        invariant(pushed, "a ring with room takes a large batch")
    }

    /// Puts the commands of this replica's own clients that are large out of the way of the others.
    mutating func sortOut() { _ = nextOwnSize() }

    var hasLarge: Bool { !large.isEmpty }

    /// The oldest large batch; its frame is the caller's.
    mutating func takeLarge() -> LargeBatch? {
        guard let batch = large.pop() else { return nil }
        if !batch.isOwn { forwardedBytes -= PeerHeader.size + batch.size }
        return batch
    }

    /// Bytes that the next command, or run, takes in a batch; nil when none waits.
    mutating func nextSize() -> Int? {
        runsFirst ? nextRunSize() ?? nextOwnSize() : nextOwnSize() ?? nextRunSize()
    }

    private mutating func nextRunSize() -> Int? {
        if !holdsRun, let frame = forwarded.pop() {
            run.adopt(frame)
            holdsRun = true
        }
        return holdsRun ? run.count - PeerHeader.size : nil
    }

    private mutating func nextOwnSize() -> Int? {
        if carried == nil { carried = submissions.pop() }
        let size = carried.map { CommandRecord.size(bodyCount: $0.body.count) }
        return size ?? 0 > largeFrom ? sizeBehindLarge() : size
    }

    /// Sets aside what is large, up to a command that is not.
    @inline(never)
    private mutating func sizeBehindLarge() -> Int? {
        while let submission = carried {
            let size = CommandRecord.size(bodyCount: submission.body.count)
            guard size > largeFrom, !large.isFull else { return size }
            largeFrame.rebuild(size: PeerHeader.size + size)
            write(submission, to: largeFrame.bytes.baseAddress! + PeerHeader.size)
            setAside(LargeBatch(largeFrame, isOwn: true))
            carried = submissions.pop()
        }
        return nil
    }

    /// Writes the record of the submission that is carried, which is over with that.
    @discardableResult
    @inline(__always) private mutating func write(_ submission: Submission, to place: UnsafeMutableRawPointer) -> Int {
        let size = CommandRecord.write(
            into: place, kind: CommandRecord.Kind(rawValue: submission.kind)!, origin: origin, tag: submission.tag,
            session: submission.session, sequence: submission.sequence, body: submission.body.bytes)
        submission.body.release(to: bodies)
        carried = nil
        return size
    }

    /// Bytes that the first waiting command takes in a batch; nil when none waits.
    mutating func nextCommandSize() -> Int? {
        if let size = runsFirst ? nil : nextOwnSize() { return size }
        guard nextRunSize() != nil else { return nextOwnSize() }
        var records = CommandRecords(
            UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(run.bytes)[PeerHeader.size...]))
        return records.next().map { CommandRecord.size(bodyCount: $0.body.count) }
    }

    /// Whether at least `bytes` wait, by a cheap estimate: the commands in the ring count with the size of the first.
    mutating func gathered(atLeast bytes: Int) -> Bool { waitingBytes >= bytes }

    /// What waits, by that estimate.
    var waitingBytes: Int {
        mutating get {
            guard let size = nextSize() else { return 0 }
            return size * (1 + submissions.count + forwarded.count)
        }
    }

    /// Whether the batch that could be made now should wait for company.
    mutating func shouldWait(now: UInt64) -> Bool {
        guard delay > 0 else { return false }
        let since = waitingSince ?? now
        let waits = now < since + delay && !gathered(atLeast: batchBytes)
        waitingSince = waits ? since : nil
        return waits
    }

    var nextDeadline: UInt64 { waitingSince.map { $0 + delay } ?? .max }

    /// Writes waiting commands to `place`, as many as fit into `capacity` bytes.
    mutating func fill(_ place: UnsafeMutableRawPointer, capacity: Int) -> (bytes: Int, commands: Int) {
        var bytes = 0
        var commands = 0
        if runsFirst { fillWithRuns(place, capacity, &bytes, &commands) }
        fillWithOwn(place, capacity, &bytes, &commands)
        if !runsFirst { fillWithRuns(place, capacity, &bytes, &commands) }
        runsFirst.toggle()
        waitingSince = nil
        invariant(bytes <= capacity, "a batch ends within the place that was reserved for it")
        return (bytes, commands)
    }

    private mutating func fillWithRuns(
        _ place: UnsafeMutableRawPointer, _ capacity: Int, _ bytes: inout Int, _ commands: inout Int
    ) {
        while let size = nextRunSize(), bytes + size <= capacity {
            let records = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(run.bytes)[PeerHeader.size...])
            (place + bytes).copyMemory(from: records.baseAddress!, byteCount: records.count)
            bytes += size
            commands += CommandRecords.count(in: records)!
            forwardedBytes -= run.count
            run.clear()
            holdsRun = false
        }
    }

    private mutating func fillWithOwn(
        _ place: UnsafeMutableRawPointer, _ capacity: Int, _ bytes: inout Int, _ commands: inout Int
    ) {
        while let size = nextOwnSize(), bytes + size <= capacity, let submission = carried {
            bytes += write(submission, to: place + bytes)
            commands += 1
        }
    }
}
