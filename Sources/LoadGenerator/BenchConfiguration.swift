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
    }

    /// Client endpoints of all replicas (`tcp://host:port` or `ipc://path`), by ascending id.
    package var endpoints: [String]
    /// Sessions, each with at most one request outstanding. In an open loop: the most that are outstanding at once.
    package var sessions = 100
    /// TCP connections that the sessions share evenly; nil: as many as sessions, up to 100.
    package var connections: Int?
    package var load = Load.closed
    package var target = Target.leader
    /// Bytes of a value that is put.
    package var valueSize = 128
    /// Keys are drawn from `key-000000000000` up to this many.
    package var keys: UInt64 = 100_000
    package var keyDistribution = KeyDistribution.uniform
    /// Share of requests that are reads (QUERY with get), 0 to 1. The others are puts.
    package var readShare = 0.0
    /// Measured seconds, after `warmup` seconds that are not measured.
    package var seconds = 10.0
    package var warmup = 2.0
    /// Seconds that the cluster has to open all sessions before the run fails.
    package var timeout = 10.0
    /// Seconds after which an unanswered request is sent again with the same sequence.
    package var requestTimeout = 1.0
    package var seed: UInt64 = 1

    package init(endpoints: [String]) {
        self.endpoints = endpoints
    }

    package var connectionCount: Int { connections ?? min(sessions, 100) }

    /// The first value out of its range, in words for the user; nil when all is well.
    package var problem: String? {
        if endpoints.isEmpty { return "no client endpoints to send to" }
        if sessions < 1 || sessions > Session.largestCount {
            return "clients: \(sessions) given, 1 to \(Session.largestCount) expected"
        }
        if connectionCount < 1 || connectionCount > sessions || connectionCount > 60_000 {
            return "connections: \(connectionCount) given, 1 to the number of clients (\(sessions)) expected"
        }
        if case .open(let rate) = load, !(rate >= 0.1 && rate <= 100_000_000) {
            return "rate: \(rate) given, 0.1 to 100000000 requests a second expected"
        }
        if valueSize < 0 || valueSize > 16 << 20 { return "value size: \(valueSize) given, 0 to 16 MiB expected" }
        if keys < 1 || keys > RequestTemplate.largestKeyCount {
            return "keys: \(keys) given, 1 to \(RequestTemplate.largestKeyCount) expected"
        }
        if !(readShare >= 0 && readShare <= 1) { return "read share: \(readShare) given, 0 to 1 expected" }
        if !(seconds > 0 && seconds <= 1e6) { return "seconds: \(seconds) given, a positive number expected" }
        if !(warmup >= 0 && warmup <= 1e6) { return "warmup: \(warmup) given, 0 or a positive number expected" }
        if !(timeout > 0 && timeout <= 1e6) { return "timeout: \(timeout) given, a positive number expected" }
        if !(requestTimeout > 0.001 && requestTimeout <= 1e6) {
            return "request timeout: \(requestTimeout) given, more than a millisecond expected"
        }
        return nil
    }
}

/// A run that cannot begin or go on.
package struct BenchError: Error, CustomStringConvertible, Equatable {
    package enum Kind: Sendable {
        /// The configuration is out of range, or the replicas refuse such requests (exit code 2).
        case usage
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
