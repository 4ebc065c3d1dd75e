import Foundation
import Glibc
import MPaxosClient
import MPaxosKeys
import MPaxosTopology

/// Asks all replicas for their STATUS at once.
struct StatusQuery {
    /// Why there is no answer, as half a sentence.
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    /// A live replica answers STATUS at once, whatever it is at: once one has answered, the others have this long, in
    /// seconds.
    private static let grace = 2.0

    /// With keys: seconds between looks at what keeps a connection from being made.
    private static let attempt = 0.5

    let members: [Topology.Member]
    /// Where clients of the cluster have keys.
    let keys: ClusterKeys?
    /// Seconds.
    let timeout: Double

    /// - Returns: in the order of `members`, the body of each answer.
    func ask() -> [Result<String, Problem>] {
        let silent = Result<String, Problem>.failure(Problem(description: "no answer within the time"))
        let answers = Answers(count: members.count)
        for (index, member) in members.enumerated() {
            // Abandoned when it is too slow: the process ends soon.
            Thread.detachNewThread { [keys, timeout] in
                let answer = Self.ask(member, keys: keys, timeout: timeout) { answers.suppose(index, $0) }
                answers.fill(index, answer)
            }
        }
        answers.wait(until: Date(timeIntervalSinceNow: timeout), grace: Self.grace)
        return answers.all.map { $0 ?? silent }
    }

    /// - Parameter suppose: called with what stands in the way so far.
    private static func ask(
        _ member: Topology.Member, keys: ClusterKeys?, timeout: Double, suppose: (Problem) -> Void
    ) -> Result<String, Problem> {
        if nobodyListens(at: member.client) {
            return .failure(Problem(description: "nobody listens at \(member.client)"))
        }
        do throws(ClientError) {
            let connection = try Connection(to: member.client.description, keys: keys)
            let end = Date(timeIntervalSinceNow: timeout)
            // Why a handshake fails is known early, and is better told than the silence of it.
            while keys != nil, end.timeIntervalSinceNow > attempt {
                do throws(ClientError) {
                    return .success(try body(of: connection, within: attempt))
                } catch .unanswered(let reason, _) {
                    suppose(Problem(description: reason))
                }
            }
            return .success(try body(of: connection, within: max(0.001, end.timeIntervalSinceNow)))
        } catch {
            return .failure(Problem(description: error.description))
        }
    }

    private static func body(of connection: Connection, within seconds: Double) throws(ClientError) -> String {
        String(decoding: try connection.status(timeout: .seconds(seconds)), as: UTF8.self)
    }

    /// Whether the host says so by itself. ZeroMQ would try again and again in silence.
    private static func nobodyListens(at endpoint: Endpoint) -> Bool {
        guard let address = endpoint.address else { return false }
        var hints = addrinfo()
        hints.ai_flags = AI_NUMERICSERV
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(address.host, "\(address.port)", &hints, &list) == 0, let first = list?.pointee else {
            return false
        }
        defer { freeaddrinfo(list) }
        let descriptor = socket(first.ai_family, first.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), first.ai_protocol)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var limit = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        return connect(descriptor, first.ai_addr, first.ai_addrlen) != 0 && errno == ECONNREFUSED
    }
}

/// Where the threads that ask leave their answers.
private final class Answers: @unchecked Sendable {
    // Unchecked: everything is behind the condition's lock.
    private let condition = NSCondition()
    private var slots: [Result<String, StatusQuery.Problem>?]
    private var supposed: [StatusQuery.Problem?]

    init(count: Int) {
        slots = Array(repeating: nil, count: count)
        supposed = Array(repeating: nil, count: count)
    }

    /// What the answer would be if none came.
    func suppose(_ index: Int, _ problem: StatusQuery.Problem) {
        condition.lock()
        supposed[index] = problem
        condition.unlock()
    }

    func fill(_ index: Int, _ answer: Result<String, StatusQuery.Problem>) {
        condition.lock()
        slots[index] = answer
        condition.broadcast()
        condition.unlock()
    }

    /// Until all are there, or `limit`, or `grace` seconds after the first replica has answered.
    func wait(until limit: Date, grace: Double) {
        condition.lock()
        defer { condition.unlock() }
        var limit = limit
        var hasAnswer = false
        while slots.contains(where: { $0 == nil }) {
            if !hasAnswer, slots.contains(where: { if case .success = $0 { true } else { false } }) {
                hasAnswer = true
                limit = min(limit, Date(timeIntervalSinceNow: grace))
            }
            guard condition.wait(until: limit) else { return }
        }
    }

    var all: [Result<String, StatusQuery.Problem>?] {
        condition.lock()
        defer { condition.unlock() }
        return zip(slots, supposed).map { slot, problem in slot ?? problem.map { .failure($0) } }
    }
}
