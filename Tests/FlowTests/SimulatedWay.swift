import Testing

@testable import MPaxosFlow

/// The stamp of a mark behind what was sent.
func mark(_ window: inout SendWindow, now: UInt64) throws -> UInt64 {
    let stamp = window.newMark(now: now)
    return try #require(stamp)
}

/// One direction of a way through a network: a narrowest place with a queue without end, then a delay. Times are
/// microseconds.
struct SimulatedWay {
    /// Bytes a second.
    var rate: Double
    /// One way; the way back takes as long, and is never busy.
    var delay: Double
    private(set) var busyUntil = 0.0
    private(set) var carried = 0.0

    init(rate: Double, roundTrip: Double) {
        self.rate = rate
        delay = roundTrip / 2
    }

    /// When the last of these bytes is at the other end.
    mutating func carry(_ bytes: Int, at now: Double) -> Double {
        busyUntil = max(busyUntil, now) + Double(bytes) * 1e6 / rate
        carried += Double(bytes)
        return busyUntil + delay
    }

    /// How long a byte that is sent now waits.
    func queue(at now: Double) -> Double { max(0, busyUntil - now) }
}

/// Senders that share a way, each with a window of its own and as much to send as it may, or less.
final class SimulatedSenders {
    final class Sender {
        var window = SendWindow()
        fileprivate(set) var echoes: [(due: Double, stamp: UInt64)] = []
        fileprivate var firstEcho = 0
        /// Bytes a second that it has to send; nil: without end.
        var offered: Double?
        fileprivate var offeredSince = 0.0
        fileprivate(set) var sent = 0.0
        /// All that it sends is pieces.
        var isPieces = false
        var isLosingMarks = false

        /// Nothing of what was sent arrives, and the link is up again.
        func reset(now: Double) {
            echoes.removeAll()
            firstEcho = 0
            window.reset(now: UInt64(now))
        }

        fileprivate var nextEcho: Double { firstEcho < echoes.count ? echoes[firstEcho].due : .infinity }
    }

    var way: SimulatedWay
    let senders: [Sender]
    private(set) var now = 1_000_000.0
    /// The sum of waits, and how many were taken.
    private var waits = (sum: 0.0, highest: 0.0, count: 0)

    init(_ way: SimulatedWay, count: Int = 1) {
        self.way = way
        senders = (0..<count).map { _ in Sender() }
        for sender in senders {
            sender.window.reset(now: UInt64(now))
            sender.offeredSince = now
        }
    }

    var window: SendWindow {
        _read { yield senders[0].window }
        _modify { yield &senders[0].window }
    }

    /// What a stretch of time showed.
    struct Measured {
        /// Of what the way can carry.
        var used: Double
        /// Mean and longest wait in the queue.
        var queue: Double
        var longest: Double
        /// Bytes of each sender.
        var sent: [Double]
    }

    /// Lets so many seconds pass.
    @discardableResult
    func run(seconds: Double) -> Measured {
        let (start, end) = (now, now + seconds * 1e6)
        let before = senders.map(\.sent)
        waits = (0, 0, 0)
        while true {
            for sender in senders { fill(sender) }
            var next = end
            for sender in senders {
                next = min(next, sender.nextEcho, Double(sender.window.nextDeadline))
                if sender.offered != nil { next = min(next, now + 1_000) }
            }
            now = max(now, min(next, end))
            if now >= end { break }
            for sender in senders {
                while sender.nextEcho <= now {
                    let stamp = sender.echoes[sender.firstEcho].stamp
                    sender.firstEcho += 1
                    _ = sender.window.returned(stamp, now: UInt64(now))
                }
                if sender.firstEcho > 10_000 {
                    sender.echoes.removeFirst(sender.firstEcho)
                    sender.firstEcho = 0
                }
            }
        }
        let sent = zip(senders, before).map { $0.sent - $1 }
        return Measured(
            used: sent.reduce(0, +) / (way.rate * (now - start) / 1e6),
            queue: waits.count == 0 ? 0 : waits.sum / Double(waits.count), longest: waits.highest, sent: sent)
    }

    private func fill(_ sender: Sender) {
        while (sender.isPieces ? sender.window.roomForPieces : sender.window.room) > 0 {
            let chunk = sender.window.pieceSize
            if let offered = sender.offered {
                guard (now - sender.offeredSince) * offered / 1e6 >= Double(chunk) else { break }
                sender.offeredSince += Double(chunk) * 1e6 / offered
            }
            carry(chunk, of: sender)
        }
        if sender.offered == nil { sender.window.ranShort() }
        mark(sender)
    }

    private func carry(_ bytes: Int, of sender: Sender) {
        let wait = way.queue(at: now)
        waits = (waits.sum + wait, max(waits.highest, wait), waits.count + 1)
        _ = way.carry(bytes, at: now)
        sender.sent += Double(bytes)
        sender.window.sent(bytes, pieces: sender.isPieces, now: UInt64(now))
        mark(sender)
    }

    private func mark(_ sender: Sender) {
        guard let stamp = sender.window.takeMark(now: UInt64(now)) else { return }
        let arrival = way.carry(64, at: now)
        if !sender.isLosingMarks { sender.echoes.append((arrival + way.delay, stamp)) }
    }
}
