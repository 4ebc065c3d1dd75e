import MPaxosInvariants

/// What one replica may have under way to one peer, in bytes, and what it has.
///
/// TCP delivers everything, in order, and takes whatever it is given: what was given too early waits in queues of
/// the operating system and of the network, and everything that is given later waits behind it. So the sender keeps
/// as much under way as the link carries in a round trip, and a little more (`queueTarget`) lest the link run dry;
/// the rest stays where it can still be passed by.
///
/// The sender puts a *mark* between its bytes now and then, which the peer returns at once. A mark that is back
/// says that all before it has arrived, how long that took, and how many bytes arrived meanwhile. From these the
/// window follows as in BBR (Cardwell and others, "BBR: Congestion-Based Congestion Control", ACM Queue 14(5),
/// 2016): the highest recent rate, times the lowest recent round trip and the queue that is aimed for. While the
/// rate still grows from one round to the next it is taken for half of what the way carries. Now and then, at a
/// time that all windows of a replica have in common, the window is halved for three rounds: then the queues are
/// empty, and the lowest round trip shows. So it is, and older rates are forgotten, when two rounds in a row met a
/// long queue: the way has become slower, or longer.
///
/// Two kinds of bytes share the window. *Orderly* ones (proposals, runs of commands) may fill it whatever else is
/// under way; *pieces* of large payloads take what is left, and a quarter at least, so that neither waits for ever.
///
/// Pure: no clock, no memory but its own, no locks. One owner. Times are microseconds of one monotonic clock.
package struct SendWindow: ~Copyable {
    /// The queue that is aimed for at the narrowest place of the way, as time: what a heartbeat waits for on a busy
    /// link.
    package static let queueTarget: UInt64 = 15_000
    package static let initialSize = 32 << 10
    package static let leastSize = 8 << 10
    package static let mostSize = 32 << 20
    /// How often the lowest round trip is looked for anew.
    static let epoch: UInt64 = 20_000_000
    /// A link without traffic is measured this often.
    package static let probeInterval: UInt64 = 1_000_000
    /// Bytes without a mark behind them get one after this time, on long ways after a part of the round trip, on a
    /// short one that is not busy later.
    static let leastMarkDelay: UInt64 = 5_000
    static let idleMarkDelay: UInt64 = 20_000
    static let mostMarks = 64
    /// So many marks share a full window. What arrived since the last one that is back counts as under way: on a long
    /// way, whose queue is a small part of it, fewer marks would leave the way idle meanwhile.
    static let marksPerWindow = 16
    private static let rateRounds = 8

    /// A mark that is kept for longer tells nothing more, and the arithmetic on its time cannot overflow.
    private static let longestRoundTrip: UInt64 = 60_000_000

    private let inPlace = InPlace()

    private struct Mark {
        var stamp: UInt64 = 0
        /// Bytes sent before it, of both kinds, and pieces among them.
        var sent = 0
        var pieces = 0
        var at: UInt64 = 0
        /// Bytes known to have arrived when it was sent.
        var arrived = 0
    }

    private let marks: UnsafeMutablePointer<Mark>
    private var firstMark = 0
    private var markCount = 0
    /// Stamps rise for the life of the window, over resets: the mark of an earlier connection is told from one of this.
    private var lastStamp: UInt64 = 0

    private var sent = 0
    private var sentPieces = 0
    private var arrived = 0
    private var arrivedPieces = 0
    private var marked = 0
    private var unmarkedSince: UInt64 = 0
    private var lastMarkAt: UInt64 = 0

    /// Bytes that may be under way.
    package private(set) var size = Self.initialSize
    package private(set) var roundTrip = RoundTrip()
    /// The lowest round trip of late; 0 before the first.
    package private(set) var leastRoundTrip: UInt64 = 0
    private var currentEpoch: UInt64 = 0
    private var wasLimitedInEpoch = false

    /// The round under way ends when a mark is back that was sent after the round before had ended.
    private var roundStamp: UInt64 = 0
    private var roundRate: UInt64 = 0
    private var roundTime: UInt64 = .max
    private var roundLongest: UInt64 = 0
    private var wasLimited = false
    private var isStarting = true
    private var fullRate: UInt64 = 0
    private var roundsWithoutGrowth = 0
    private var congestedRounds = 0
    /// Of the round before.
    private var lastRate: UInt64 = 0
    /// Bytes a second, of the last rounds.
    private var rates: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
    private var nextRate = 0
    /// Rounds that the search for the lowest round trip still takes, and the lowest that it found.
    private var searchRounds = 0
    private var searchLeast: UInt64 = .max
    /// What bounds the window besides `size`: during the search, and afterwards until the way is filled again. Then it
    /// grows with what arrives: all at once would wait in a queue. `.max`: nothing.
    private var cap = Int.max
    /// The window with which the way was too full last, in this epoch; `.max`: it was not.
    private var ceiling = Int.max
    /// From this round trip on a way is long: a pause of the machine is small beside it.
    private static let longWay: UInt64 = 20_000

    package init() {
        marks = .allocate(capacity: Self.mostMarks)
        marks.initialize(repeating: Mark(), count: Self.mostMarks)
    }

    deinit { marks.deallocate() }

    // MARK: What is under way

    /// Bytes sent and not known to have arrived.
    @inline(__always) package var underWay: Int { sent - arrived }

    @inline(__always) private var piecesUnderWay: Int { sentPieces - arrivedPieces }

    /// The window in force.
    @inline(__always) private var limit: Int { min(size, cap) }

    /// The queue that is aimed for: in proportion on long ways, where the window can follow the link only slowly.
    @inline(__always) private var queue: UInt64 { max(Self.queueTarget, leastRoundTrip / 8) }

    /// Bytes of proposals and runs that may be sent now; not above 0: none.
    package var room: Int { limit - (underWay - piecesUnderWay) }

    /// Bytes of pieces that may be sent now; not above 0: none.
    package var roomForPieces: Int { max(limit - underWay, limit / 4 - piecesUnderWay) }

    /// What goes out whole: more would hold up what comes behind it for too long, and travels in pieces.
    package var largestWhole: Int { max(16 << 10, size / 2) }

    /// A command beyond this takes a road of its own, lest those behind it wait.
    package var largestOrdinary: Int { max(16 << 10, size / 4) }

    /// Bytes of one piece.
    package var pieceSize: Int { min(max(size / 4, 4 << 10), 64 << 10) }

    /// Bytes that are known to have arrived, or were given up with a lost link.
    package var arrivedBytes: Int { arrived }

    // MARK: Sending

    /// Where a short way is far from full, marks have nothing to tell that could not wait, and each costs both replicas
    /// a wake-up.
    private var isIdle: Bool { leastRoundTrip > 0 && leastRoundTrip < Self.longWay && 2 * underWay < limit }

    private var markDelay: UInt64 {
        isIdle ? Self.idleMarkDelay : max(Self.leastMarkDelay, roundTrip.smoothed / 32)
    }

    private var bytesPerMark: Int { isIdle ? limit / 2 : max(limit / Self.marksPerWindow, 4 << 10) }

    /// So many bytes were handed to the link.
    package mutating func sent(_ bytes: Int, pieces: Bool, now: UInt64) {
        invariant(bytes >= 0, "what is sent has no negative length")
        if sent == marked { unmarkedSince = now }
        sent += bytes
        if pieces { sentPieces += bytes }
        if 2 * underWay >= limit { wasLimited = true }
    }

    /// There was more to be sent than the window allows.
    package mutating func ranShort() { wasLimited = true }

    /// The stamp of the mark that is to be sent now, behind all that was sent; nil: none is due.
    package mutating func takeMark(now: UInt64) -> UInt64? {
        let unmarked = sent - marked
        let isDue =
            unmarked > 0
            ? unmarked >= bytesPerMark || now >= unmarkedSince + markDelay
            : now >= lastMarkAt + Self.probeInterval
        return isDue ? newMark(now: now) : nil
    }

    mutating func newMark(now: UInt64) -> UInt64? {
        guard markCount < Self.mostMarks else { return nil }
        lastStamp += 1
        marks[(firstMark + markCount) % Self.mostMarks] = Mark(
            stamp: lastStamp, sent: sent, pieces: sentPieces, at: now, arrived: arrived)
        markCount += 1
        marked = sent
        lastMarkAt = now
        return lastStamp
    }

    /// When `takeMark` has one though nothing is sent any more.
    package var nextDeadline: UInt64 {
        guard markCount < Self.mostMarks else { return .max }
        return sent > marked ? unmarkedSince + markDelay : lastMarkAt + Self.probeInterval
    }

    // MARK: Arrival

    /// A mark came back. False: it is none of those under way (of an earlier connection, repeated, or invented):
    /// nothing happened.
    package mutating func returned(_ stamp: UInt64, now: UInt64) -> Bool {
        guard markCount > 0, stamp >= marks[firstMark].stamp, stamp <= lastStamp else { return false }
        var mark = Mark()
        while markCount > 0, marks[firstMark].stamp <= stamp {
            mark = marks[firstMark]
            firstMark = (firstMark + 1) % Self.mostMarks
            markCount -= 1
        }
        if cap < .max && searchRounds == 0 {
            cap += mark.sent - arrived
            if cap >= size { cap = .max }
        }
        arrived = mark.sent
        arrivedPieces = mark.pieces
        let time = min(max(now > mark.at ? now - mark.at : 0, 1), Self.longestRoundTrip)
        roundTrip.sample(time)
        if leastRoundTrip == 0 || time < leastRoundTrip { leastRoundTrip = time }
        if searchRounds > 0 { searchLeast = min(searchLeast, time) }
        let rate = UInt64(arrived - mark.arrived) * 1_000_000 / time
        roundRate = max(roundRate, rate)
        roundTime = min(roundTime, time)
        roundLongest = max(roundLongest, time)
        if stamp > roundStamp { endRound(now: now) }
        return true
    }

    /// The link is up, for the first time or again: nothing is under way. What was learnt of the way stays.
    package mutating func reset(now: UInt64) {
        firstMark = 0
        markCount = 0
        arrived = sent
        arrivedPieces = sentPieces
        marked = sent
        roundStamp = lastStamp
        roundRate = 0
        roundTime = .max
        roundLongest = 0
        currentEpoch = now / Self.epoch
        wasLimitedInEpoch = false
        searchRounds = 0
        congestedRounds = 0
        cap = size > Self.initialSize ? Self.initialSize : .max
        // Measured at once.
        lastMarkAt = now > Self.probeInterval ? now - Self.probeInterval : 0
    }

    private mutating func endRound(now: UInt64) {
        roundStamp = lastStamp
        let rate = roundRate
        // A queue that no byte of the round found empty: the window is too large, whether or not it was full.
        let hasQueue = roundTime > leastRoundTrip + 2 * queue
        // On a long way whose queue is short too much shows otherwise: TCP repeats what was lost, which takes half a
        // round trip more.
        let hasLost =
            leastRoundTrip >= Self.longWay && roundLongest > leastRoundTrip + leastRoundTrip / 2 + 2 * queue
        // While more arrives from round to round the reason is TCP, which begins slowly, too.
        let isCongested = (hasQueue || hasLost) && rate < lastRate + lastRate / 4
        let isEmpty = roundTime <= leastRoundTrip + queue / 8
        let wasLimited = wasLimited || hasQueue
        roundRate = 0
        roundTime = .max
        roundLongest = 0
        self.wasLimited = false
        wasLimitedInEpoch = wasLimitedInEpoch || wasLimited
        congestedRounds = isCongested && hasQueue ? congestedRounds + 1 : 0
        if isCongested { ceiling = size }
        defer { lastRate = rate }
        if searchRounds > 0 {
            searchRounds -= 1
            if searchRounds == 0 {
                // A way that is much longer than it was is another one, whose rate nobody knows.
                if searchLeast > 2 * leastRoundTrip { start() }
                leastRoundTrip = searchLeast
                congestedRounds = 0
            }
            return
        }
        if congestedRounds > 1 {
            // The way has become slower, or longer: what it did before says nothing any more. Which of the two, the
            // search tells.
            forgetRates(above: min(rate, lastRate))
            size = max(min(size, wantedSize), Self.leastSize)
            search()
            return
        }
        if now / Self.epoch != currentEpoch {
            currentEpoch = now / Self.epoch
            ceiling = .max
            if wasLimitedInEpoch {
                wasLimitedInEpoch = false
                search()
                return
            }
        }
        // With a queue that was never empty the link did all it can: what it did before, or seemed to, counts no more.
        if isCongested { forgetRates(above: hasQueue ? rate : max(rate, lastRate)) }
        let highest = highestRate
        // A way that was not kept busy says only that it carries at least so much.
        guard (wasLimited && cap == .max) || rate > highest else { return }
        remember(rate)
        if isStarting { watchGrowth(of: rate, limited: wasLimited, congested: isCongested) }
        resize(limited: wasLimited, empty: isEmpty)
    }

    /// The start is over when the rate has not grown by a quarter in three rounds in which the window was the limit, or
    /// in one with a queue. (A queue alone may be TCP's, which begins slowly, too.)
    private mutating func watchGrowth(of rate: UInt64, limited: Bool, congested: Bool) {
        guard rate < fullRate + fullRate / 4 else {
            fullRate = rate
            roundsWithoutGrowth = 0
            return
        }
        guard limited else { return }
        roundsWithoutGrowth += 1
        if congested || roundsWithoutGrowth >= 3 { isStarting = false }
    }

    /// Begins to look for the lowest round trip: with half of what the way holds without a queue.
    private mutating func search() {
        searchRounds = 3
        searchLeast = .max
        let held = UInt64(size) * leastRoundTrip / (leastRoundTrip + queue)
        cap = max(Self.leastSize, Int(held) / 2)
    }

    private mutating func start() {
        isStarting = true
        fullRate = 0
        roundsWithoutGrowth = 0
    }

    private var wantedSize: Int {
        let time = isStarting ? 2 * leastRoundTrip + queue : leastRoundTrip + queue
        return Int(clamping: highestRate.multipliedReportingOverflow(by: time).partialValue / 1_000_000)
    }

    private mutating func resize(limited: Bool, empty: Bool) {
        var wanted = wantedSize
        // Without a queue there is more to be had, up to where there was too much.
        if empty && size < ceiling / 4 * 3 { wanted = max(wanted, size + size / 4) }
        if wanted > size {
            guard limited else { return }
            size = min(wanted, 2 * size, Self.mostSize)
        } else {
            size = max(wanted, size / 2, Self.leastSize)
        }
    }

    private var highestRate: UInt64 {
        max(
            max(max(rates.0, rates.1), max(rates.2, rates.3)), max(max(rates.4, rates.5), max(rates.6, rates.7)))
    }

    private mutating func forgetRates(above rate: UInt64) { rates = (rate, rate, rate, rate, rate, rate, rate, rate) }

    private mutating func remember(_ rate: UInt64) {
        withUnsafeMutableBytes(of: &rates) { $0.storeBytes(of: rate, toByteOffset: 8 * nextRate, as: UInt64.self) }
        nextRate = (nextRate + 1) % Self.rateRounds
    }
}
