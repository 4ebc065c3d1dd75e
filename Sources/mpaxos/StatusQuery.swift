import Client
import Foundation
import Glibc
import Topology

/// Asks all replicas for their STATUS at once.
struct StatusQuery {
    /// Why there is no answer, as half a sentence.
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    /// A live replica answers STATUS at once, whatever it is at: once one has answered, the others have this long, in seconds.
    private static let grace = 2.0

    let members: [Topology.Member]
    /// Seconds.
    let timeout: Double

    /// - Returns: in the order of `members`, the body of each answer.
    func ask() -> [Result<String, Problem>] {
        let silent = Result<String, Problem>.failure(Problem(description: "no answer within the time"))
        let answers = Answers(count: members.count)
        for (index, member) in members.enumerated() {
            // Abandoned when it is too slow: the process ends soon.
            Thread.detachNewThread { [timeout] in answers.fill(index, Self.ask(member, timeout: timeout)) }
        }
        answers.wait(until: Date(timeIntervalSinceNow: timeout), grace: Self.grace)
        return answers.all.map { $0 ?? silent }
    }

    private static func ask(_ member: Topology.Member, timeout: Double) -> Result<String, Problem> {
        if nobodyListens(at: member.client) {
            return .failure(Problem(description: "nobody listens at \(member.client)"))
        }
        do throws(ClientError) {
            let body = try Connection(to: member.client.description).status(timeout: .seconds(timeout))
            return .success(String(decoding: body, as: UTF8.self))
        } catch {
            return .failure(Problem(description: error.description))
        }
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

    init(count: Int) { slots = Array(repeating: nil, count: count) }

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
        return slots
    }
}
