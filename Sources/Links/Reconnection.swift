/// When to connect anew to a member of lower index while no connection stands. The sockets try by themselves as long as
/// the other side is silent; where it has refused this one, or nothing is heard of their attempts, that is over.
struct Reconnection {
    /// Microseconds before it is connected to again.
    static let refusedPause: UInt64 = 1_000_000
    /// Microseconds before the other key is tried.
    private static let changePause: UInt64 = 50_000
    /// Microseconds that an attempt takes before the handshake, with some to spare.
    private static let attemptTime: UInt64 = 2_000_000

    /// Microseconds in which something must be heard of each attempt.
    private let patience: UInt64
    private var retryAt: UInt64 = 0
    /// The other side has refused this one, since it was connected to last.
    private var isRefused = false
    /// When to try the other key.
    private var changeAt = UInt64.max
    /// Handshakes that ended without a word, one after the other.
    private(set) var failures = 0

    init(hasKeys: Bool) { patience = Self.attemptTime + LinkSockets.handshakeTime(hasKeys: hasKeys) }

    /// Something was heard of the connection.
    mutating func heard(now: UInt64) {
        // The end of the connection that was refused is heard of, too.
        guard !isRefused else { return }
        retryAt = now + patience
    }

    /// The sockets have given up, on who may take this side in a moment.
    mutating func wasRefused(now: UInt64) {
        isRefused = true
        retryAt = now + Self.refusedPause
    }

    /// The other side broke off.
    /// - Parameter hasOtherKeys: it may have another key than the one that was tried last.
    mutating func failed(hasOtherKeys: Bool, now: UInt64) {
        failures += 1
        if changeAt == .max, hasOtherKeys { changeAt = now + Self.changePause }
    }

    /// The handshake is done.
    mutating func connected() {
        failures = 0
        changeAt = .max
    }

    /// When to connect anew, unless something is heard before.
    var deadline: UInt64 { min(retryAt, changeAt) }

    func isDue(now: UInt64) -> Bool { now >= deadline }

    /// The sockets connect anew.
    mutating func begins(now: UInt64) {
        isRefused = false
        heard(now: now)
        changeAt = .max
    }
}
