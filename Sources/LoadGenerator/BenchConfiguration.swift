import MPaxosKeys

/// What a run of the load generator does.
package struct BenchConfiguration: Sendable {
    package enum Load: Sendable, Equatable {
        /// Every session sends its next request when the reply to the last has come.
        case closed
        /// Requests start on a schedule, `rate` a second; latency counts from the intended start, so that a request
        /// that had to wait for a free session is not flattered.
        case open(rate: Double)
    }

    package enum Target: Sendable, Equatable {
        /// All connections go to the leader and follow it (NO_FORWARD, REDIRECT).
        case leader
        /// Connections spread over all replicas.
        case all
    }

    package enum KeyDistribution: Sendable, Equatable {
        case uniform
        /// Key k with a weight of 1 / (k + 1)^exponent: `key-000000000000` is the one most asked for.
        case zipf(exponent: Double)
    }

    /// How keys are read.
    package enum Reads: Sendable, Equatable, CaseIterable {
        /// Linearizable, as QUERY.
        case query
        /// From the asked replica's own state, no older than what the session has seen (QUERY with LOCAL).
        case local
        /// Through the log, as SUBMIT.
        case ordered
    }

    /// Client endpoints of all replicas (`tcp://host:port` or `ipc://path`), by ascending id.
    package var endpoints: [String]
    /// Where replicas know their clients by keys, and clients the replicas: nil: connections are in the clear.
    package var clusterKeys: ClusterKeys?
    /// Sessions, each with at most one request outstanding. In an open loop: the most that are outstanding at once.
    package var sessions = 100
    /// TCP connections that the sessions share evenly; nil: as many as sessions, up to 100.
    package var connections: Int?
    package var load = Load.closed
    /// Levels one after the other, each warmed up and measured: rates of an open loop, or clients of a closed one (at
    /// most `sessions`). Empty: one step, with `load` and `sessions` as they are.
    package var ramp: [Double] = []
    /// In a closed loop: requests outstanding at once, all sessions together, which then send in turn; nil: one of
    /// every session.
    package var outstanding: Int?
    package var target = Target.leader
    /// Bytes of a value that is put, drawn evenly.
    package var valueSizes = 128...128
    /// Keys are drawn from `key-000000000000` up to this many.
    package var keys: UInt64 = 100_000
    package var keyDistribution = KeyDistribution.uniform
    /// Share of requests that are reads, 0 to 1. What is neither read, delete nor create is a put.
    package var readShare = 0.0
    package var reads = Reads.query
    package var deleteShare = 0.0
    /// Share of swaps that set a key if it is absent.
    package var createShare = 0.0
    /// Measured seconds, after `warmup` seconds that are not measured.
    package var seconds = 10.0
    package var warmup = 2.0
    /// Seconds of each entry of the time series, and between reports of progress.
    package var interval = 1.0
    /// Seconds that the cluster has to open all sessions before the run fails.
    package var timeout = 10.0
    /// Seconds after which an unanswered request is sent again with the same sequence.
    package var requestTimeout = 1.0
    package var seed: UInt64 = 1

    package init(endpoints: [String]) {
        self.endpoints = endpoints
    }

    package var connectionCount: Int { connections ?? min(sessions, 100) }

    package var isOpenLoop: Bool { load != .closed }

    /// Of each step: requests a second in an open loop, clients in a closed one.
    package var levels: [Double] {
        if !ramp.isEmpty { return ramp }
        if case .open(let rate) = load { return [rate] }
        return [Double(sessions)]
    }

    /// The first value out of its range, in words for the user; nil when all is well.
    package var problem: String? {
        if endpoints.isEmpty { return "no client endpoints to send to" }
        if let clusterKeys, let unknown = endpoints.first(where: { clusterKeys.replicas[$0, default: []].isEmpty }) {
            return "the key of the replica at \(unknown) is not known: the topology has none for it"
        }
        if sessions < 1 || sessions > Session.largestCount {
            return "clients: \(sessions) given, 1 to \(Session.largestCount) expected"
        }
        if connectionCount < 1 || connectionCount > sessions || connectionCount > 60_000 {
            return "connections: \(connectionCount) given, 1 to the number of clients (\(sessions)) expected"
        }
        if let problem = loadProblem ?? mixProblem { return problem }
        if keys < 1 || keys > RequestTemplate.largestKeyCount {
            return "keys: \(keys) given, 1 to \(RequestTemplate.largestKeyCount) expected"
        }
        if !(seconds > 0 && seconds <= 1e6) { return "seconds: \(seconds) given, a positive number expected" }
        if !(warmup >= 0 && warmup <= 1e6) { return "warmup: \(warmup) given, 0 or a positive number expected" }
        if !(timeout > 0 && timeout <= 1e6) { return "timeout: \(timeout) given, a positive number expected" }
        if !(requestTimeout > 0.001 && requestTimeout <= 1e6) {
            return "request timeout: \(requestTimeout) given, more than a millisecond expected"
        }
        if !(interval >= 0.01 && interval <= 3600) {
            return "interval: \(interval) given, 0.01 to 3600 seconds expected"
        }
        return nil
    }

    private var loadProblem: String? {
        for level in levels {
            if isOpenLoop {
                if !(level >= 0.1 && level <= 100_000_000) {
                    return "rate: \(level) given, 0.1 to 100000000 requests a second expected"
                }
            } else if !(level >= 1 && level <= Double(sessions) && level == level.rounded()) {
                return "clients: \(level) given in a ramp, 1 to \(sessions) expected"
            }
        }
        if let outstanding {
            if isOpenLoop || !ramp.isEmpty { return "outstanding: only for a closed loop without a ramp" }
            if outstanding < 1 || outstanding > sessions {
                return "outstanding: \(outstanding) given, 1 to the number of clients (\(sessions)) expected"
            }
        }
        return nil
    }

    private var mixProblem: String? {
        if valueSizes.lowerBound < 0 || valueSizes.upperBound > 16 << 20 {
            return "value size: \(valueSizes) given, 0 to 16 MiB expected"
        }
        let shares = [("read", readShare), ("delete", deleteShare), ("create", createShare)]
        for (name, share) in shares where !(share >= 0 && share <= 1) {
            return "\(name) share: \(share) given, 0 to 1 expected"
        }
        let sum = shares.reduce(0) { $0 + $1.1 }
        if sum > 1 + 1e-9 { return "shares of reads, deletes and creates: \(sum) together, at most 1 expected" }
        if case .zipf(let exponent) = keyDistribution, !(exponent > 0 && exponent <= 100) {
            return "zipf exponent: \(exponent) given, more than 0 and at most 100 expected"
        }
        return nil
    }
}

/// A run that cannot begin or go on.
package struct BenchError: Error, CustomStringConvertible, Equatable {
    package enum Kind: Sendable {
        /// The configuration is out of range, or the replicas refuse such requests (exit code 2).
        case usage
        /// The key may not do what a run needs (exit code 3).
        case denied
        /// The cluster does not answer (exit code 4).
        case noAnswer
        /// The operating system refuses something.
        case system
    }

    package let kind: Kind
    package let description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}
