import MPaxosInvariants

/// Something to make durable. Records of one buffer may be made durable in any order, and a crash may keep any subset
/// of them: the core never lets one record rest on another that has not been reported durable.
package struct Record: BitwiseCopyable, Hashable, Sendable {
    package enum Kind: UInt8, Sendable, BitwiseCopyable {
        /// `view` is promised.
        case promise
        /// This replica leads `view`; `instance` is its base, up to which all was decided before it.
        case established
        /// `batch` is accepted for `instance` in `view`; `decidedView`: it is known to be decided.
        case accept
    }

    package var number: LogSequenceNumber
    package var kind: Kind
    package var view: View
    package var instance: Instance
    package var batch: Batch
}

/// A message to hand to a peer when all records up to `after` are durable; at once where that is 0.
package struct Send: BitwiseCopyable, Hashable, Sendable {
    package var after: LogSequenceNumber
    package var to: ReplicaIndex
    package var message: Message
}

/// The records and sends that steps of the core leave behind. The caller owns the buffer, allocates it once, and drains
/// it when it likes, but before `hasRoom` becomes false. Several steps may share one buffer: then one fence serves them
/// all, and cumulative messages (accepted, heartbeat, nack) of later steps take the place of earlier ones.
package struct EffectBuffer: ~Copyable {
    package static let defaultCapacity = 4096

    @usableFromInline let recordSlots: UnsafeMutablePointer<Record>
    @usableFromInline let sendSlots: UnsafeMutablePointer<Send>
    /// Where the cumulative message of a kind to a peer stands in `sendSlots`, plus 1; 0 where there is none.
    @usableFromInline let standing: UnsafeMutablePointer<Int32>
    @usableFromInline static var standingCount: Int { 3 * 9 }
    package let capacity: Int
    package internal(set) var recordCount = 0
    package internal(set) var sendCount = 0

    package init(capacity: Int = EffectBuffer.defaultCapacity) {
        invariant(capacity >= Core.effectsPerStep, "a buffer holds the effects of one step")
        invariant(capacity < Int(Int32.max), "a position fits 32 bits")
        self.capacity = capacity
        recordSlots = .allocate(capacity: capacity)
        sendSlots = .allocate(capacity: capacity)
        standing = .allocate(capacity: Self.standingCount)
        standing.initialize(repeating: 0, count: Self.standingCount)
    }

    deinit {
        recordSlots.deallocate()
        sendSlots.deallocate()
        standing.deallocate()
    }

    /// Whether the effects of one more step fit.
    package var hasRoom: Bool {
        recordCount + Core.effectsPerStep <= capacity && sendCount + Core.effectsPerStep <= capacity
    }

    package var isEmpty: Bool { recordCount == 0 && sendCount == 0 }

    /// The records, in rising order of their numbers. Valid until the next step or `removeAll`.
    package var records: UnsafeBufferPointer<Record> { UnsafeBufferPointer(start: recordSlots, count: recordCount) }

    /// The sends, in the order of their making. Valid until the next step or `removeAll`.
    package var sends: UnsafeBufferPointer<Send> { UnsafeBufferPointer(start: sendSlots, count: sendCount) }

    /// To be called when the caller has taken over records and sends.
    package mutating func removeAll() {
        recordCount = 0
        sendCount = 0
        standing.update(repeating: 0, count: Self.standingCount)
    }

    mutating func append(_ record: Record) {
        invariant(recordCount < capacity, "the caller drains the buffer before it is full")
        (recordSlots + recordCount).initialize(to: record)
        recordCount += 1
    }

    mutating func append(_ send: Send) {
        invariant(sendCount < capacity, "the caller drains the buffer before it is full")
        let place: Int
        switch send.message.kind {
        case .accepted: place = send.to
        case .heartbeat: place = 9 + send.to
        case .nack: place = 18 + send.to
        default: place = -1
        }
        if place >= 0 {
            if standing[place] > 0 {
                let index = Int(standing[place] - 1)
                let earlier = sendSlots[index].message
                sendSlots[index] = send
                if send.message.kind == .heartbeat {
                    // A quiet heartbeat may not swallow one that wants an answer. Proposals that were sent between the
                    // two leave behind the one that is left, which must not speak of them.
                    if !earlier.flags.contains(.quiet) { sendSlots[index].message.flags.remove(.quiet) }
                    if earlier.view == send.message.view { sendSlots[index].message.instance = earlier.instance }
                }
                return
            }
            standing[place] = Int32(sendCount + 1)
        }
        (sendSlots + sendCount).initialize(to: send)
        sendCount += 1
    }
}
