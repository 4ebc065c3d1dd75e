import MPaxosConsensus
import MPaxosQueues

/// The rings between the stages of one replica. Every ring has one producer and one consumer stage.
package struct Rings {
    let submissions: SPSCRing<Submission>
    let localQueries: SPSCRing<LocalQuery>
    let completions: SPSCRing<Completion>
    /// Of submissions, local queries and completions.
    package let bodies: ByteRing
    let queryBodies: ByteRing
    let replyBodies: ByteRing
    package let decided: SPSCRing<DecidedBatch>
    /// From the executor: digests of the state.
    let digests: SPSCRing<DigestComparison.Standing>
    package let arrivals: SPSCRing<Arrival>
    package let departures: SPSCRing<Departure>

    /// How much some of the rings hold: enough that a replica at work meets no end of them.
    package struct Sizes: Sendable {
        /// Elements, powers of two. An arrival can bring word of every member: `arrivals` is 32 at least.
        package var decided = 1024
        package var arrivals = 4096
        package var departures = 4096
        /// Bytes: thousands of small requests; the rest of a burst lies in memory of its own.
        package var bodies = 4 << 20
        package var queryBodies = 1 << 20

        package init() {}
    }

    /// - Parameter outstanding: most requests that are admitted at once: the rings that carry one element a request
    ///   have room for all of them, so that only admission needs to push back.
    package init(outstanding: Int, sizes: Sizes = Sizes()) {
        let perRequest = Self.powerOfTwo(atLeast: outstanding)
        submissions = .allocate(capacity: perRequest)
        localQueries = .allocate(capacity: perRequest)
        completions = .allocate(capacity: perRequest)
        bodies = .allocate(capacity: sizes.bodies)
        queryBodies = .allocate(capacity: sizes.queryBodies)
        replyBodies = .allocate(capacity: sizes.bodies)
        decided = .allocate(capacity: sizes.decided)
        // The engine looks each millisecond, in which not so many thousand instances are executed.
        digests = .allocate(capacity: 64)
        arrivals = .allocate(capacity: sizes.arrivals)
        departures = .allocate(capacity: sizes.departures)
    }

    /// How much lies in each, by name.
    var held: [(what: String, count: Int)] {
        [
            ("submissions", submissions.count), ("local queries", localQueries.count),
            ("completions", completions.count), ("bytes of bodies", bodies.waiting),
            ("bytes of queries", queryBodies.waiting), ("bytes of replies", replyBodies.waiting),
            ("decided batches", decided.count), ("digests", digests.count), ("arrivals", arrivals.count),
            ("departures", departures.count),
        ]
    }

    /// All lanes must have stopped. What is still under way is let go.
    package func deallocate() {
        arrivals.publish()
        while let arrival = arrivals.pop() { arrival.frame.discard() }
        departures.publish()
        while let departure = departures.pop() { departure.frame.discard() }
        submissions.publish()
        while let submission = submissions.pop() { submission.body.release(to: bodies) }
        localQueries.publish()
        while let query = localQueries.pop() { query.body.release(to: queryBodies) }
        completions.publish()
        while let completion = completions.pop() { completion.body.release(to: replyBodies) }
        submissions.deallocate()
        localQueries.deallocate()
        completions.deallocate()
        bodies.deallocate()
        queryBodies.deallocate()
        replyBodies.deallocate()
        decided.deallocate()
        digests.deallocate()
        arrivals.deallocate()
        departures.deallocate()
    }

    private static func powerOfTwo(atLeast count: Int) -> Int {
        count <= 1 ? 1 : 1 << (Int.bitWidth - (count - 1).leadingZeroBitCount)
    }
}

/// Whom to wake after publishing for a stage. With fused threads all four are one.
package struct Parkers {
    package let gateway: Parker
    package let engine: Parker
    package let links: Parker
    package let executor: Parker

    package init(gateway: Parker, engine: Parker, links: Parker, executor: Parker) {
        self.gateway = gateway
        self.engine = engine
        self.links = links
        self.executor = executor
    }
}

/// Between engine and gateway on one lane: closed while the engine waits for the answers to a batch and could not
/// propose another that is not full.
///
/// A handle: copying it copies a pointer. It lives as long as the process's replica.
package struct Gate {
    private let flag: UnsafeMutablePointer<Bool>

    private init(flag: UnsafeMutablePointer<Bool>) { self.flag = flag }

    package static func allocate() -> Gate {
        let flag = UnsafeMutablePointer<Bool>.allocate(capacity: 1)
        flag.initialize(to: false)
        return Gate(flag: flag)
    }

    /// Both stages must have stopped.
    package func deallocate() { flag.deallocate() }

    var isClosed: Bool {
        get { flag.pointee }
        nonmutating set { flag.pointee = newValue }
    }
}
