import MPaxosConsensus

/// Runs a scenario: blocks of commands, each with what they are expected to show, after a line of dashes. See
/// Tests/Scenarios/README.md for the commands.
final class ScenarioInterpreter {
    struct Mistake: Error, CustomStringConvertible {
        var description: String
    }

    private var cluster = TestCluster(1)
    private var output: [String] = []
    /// Ways that are cut, and kinds of messages that are lost on the way.
    private var rules: [(from: Int?, to: Int?, kind: Message.Kind?)] = []

    /// The text of a scenario, with the output of each block as it is.
    static func run(_ text: String) throws -> String {
        let interpreter = ScenarioInterpreter()
        var result: [String] = []
        var isExpectation = false
        var hasCommands = false
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
            if line == "----" {
                guard hasCommands else { throw Mistake(description: "an expectation without commands") }
                result.append(line)
                result += interpreter.takeOutput()
                isExpectation = true
            } else if line.isEmpty {
                if hasCommands && !isExpectation { throw Mistake(description: "commands without an expectation") }
                isExpectation = false
                hasCommands = false
                result.append(line)
            } else if !isExpectation {
                result.append(line)
                if line.hasPrefix("#") { continue }
                hasCommands = true
                do {
                    try interpreter.execute(line.split(separator: " ").map(String.init))
                } catch let mistake as Mistake {
                    throw Mistake(description: "\(line): \(mistake)")
                }
            }
        }
        return result.joined(separator: "\n")
    }

    private func takeOutput() -> [String] {
        defer { output.removeAll() }
        return output.isEmpty ? ["nothing"] : output
    }

    // MARK: Commands

    private func execute(_ words: [String]) throws {
        let arguments = Array(words.dropFirst())
        switch words[0] {
        case "cluster": try makeCluster(arguments)
        case "elect":
            let replica = try index(arguments)
            cluster.now += 700_000
            for _ in 0..<200 where cluster.members[replica].isUp && cluster.members[replica].core.role != .leader {
                cluster.now += 5_000
                try tick(replica)
                watch { cluster.settle() }
            }
            guard cluster.members[replica].isUp && cluster.members[replica].core.role == .leader else {
                output.append("\(replica) does not come to lead")
                return
            }
        case "campaign":
            let replica = try index(arguments)
            cluster.now += 700_000
            try tick(replica)
        case "tick": try tick(try index(arguments))
        case "settle": watch { cluster.settle() }
        case "pass":
            guard let word = arguments.first, let milliseconds = UInt64(word) else { throw expected("milliseconds") }
            watch(withoutRoutine: true) { cluster.pass(milliseconds * 1000) }
        case "deliver", "drop": try move(words[0] == "drop", arguments)
        case "lose":
            rules.append(try pattern(arguments))
            useRules()
        case "cut":
            let replica = try index(arguments)
            rules += [(from: replica, to: nil, kind: nil), (from: nil, to: replica, kind: nil)]
            useRules()
        case "heal":
            rules.removeAll()
            useRules()
        case "propose": try propose(arguments)
        case "hold": try member(arguments).isHeld = true
        case "flush":
            let replica = try index(arguments)
            cluster.members[replica].isHeld = false
            cluster.flush(replica)
            watch { cluster.absorb(replica) }
        case "full": try member(arguments).lacksRoom = true
        case "room":
            let replica = try index(arguments)
            watch { cluster.makeRoom(replica) }
        case "allow":
            let (from, to, _) = try pattern(Array(arguments.prefix(1)))
            guard let from, let to, arguments.count == 2, let bytes = Int(arguments[1]) else {
                throw expected("<from>-><to> and a number of bytes")
            }
            watch { cluster.allow(bytes, from: from, to: to) }
        case "reconnect":
            let (a, b, _) = try pattern(arguments)
            guard let a, let b else { throw expected("<from>-><to>") }
            watch { cluster.reconnect(a, b) }
        case "crash": cluster.crash(try index(arguments))
        case "start":
            let replica = try index(arguments)
            watch { cluster.start(replica) }
        case "trim":
            guard arguments.count == 2, let floor = UInt64(arguments[1]) else {
                throw expected("a replica and a floor")
            }
            let replica = try index(arguments)
            let member = cluster.members[replica]
            member.core.advanceFloor(to: floor, now: cluster.now, into: &member.effects)
            member.floor = floor
            member.slots = member.slots.filter { $0.key >= floor }
            watch { cluster.absorb(replica) }
        case "flight":
            for (from, send) in cluster.inFlight { output.append(describe(send.message, from, send.to)) }
        case "log": try showLog(try index(arguments))
        case "status": for index in cluster.members.indices { showStatus(index) }
        default: throw Mistake(description: "no such command")
        }
        if let violation = cluster.violations.first { throw Mistake(description: "violates: \(violation)") }
    }

    private func makeCluster(_ arguments: [String]) throws {
        guard let word = arguments.first, let count = Int(word), (1...9).contains(count) else {
            throw expected("1 to 9 replicas")
        }
        var settings = ["window": 8, "slots": 128]
        for setting in arguments.dropFirst() {
            let parts = setting.split(separator: "=").map(String.init)
            guard parts.count == 2, settings[parts[0]] != nil, let value = Int(parts[1]) else {
                throw expected("window=<n> or slots=<n>")
            }
            settings[parts[0]] = value
        }
        cluster = TestCluster(count, window: settings["window"]!, slotCount: settings["slots"]!)
        rules.removeAll()
    }

    private func tick(_ replica: ReplicaIndex) throws {
        let member = cluster.members[replica]
        guard member.isUp else { throw expected("a replica that is up") }
        member.core.tick(now: cluster.now, into: &member.effects)
        watch { cluster.absorb(replica) }
    }

    private func propose(_ arguments: [String]) throws {
        let replica = try index(arguments)
        for word in arguments.dropFirst() {
            guard let value = UInt64(word), value > 0 else { throw expected("values above 0") }
            watch {
                guard cluster.propose(value, at: replica) != nil else {
                    output.append("refused: \(value)")
                    return
                }
            }
        }
    }

    /// Hands over, or loses, what is in flight and fits the pattern now; what follows from it stays in flight.
    private func move(_ isDropped: Bool, _ arguments: [String]) throws {
        let pattern = try pattern(arguments)
        let matching = cluster.inFlight.filter { Self.fits($0.from, $0.send.to, $0.send.message, pattern) }
        cluster.inFlight.removeAll { Self.fits($0.from, $0.send.to, $0.send.message, pattern) }
        guard !matching.isEmpty else { throw expected("a message in flight that fits") }
        for (from, send) in matching {
            let text = describe(send.message, from, send.to)
            if isDropped {
                output.append("lost: \(text)")
            } else if cluster.members[send.to].isUp {
                output.append(text)
                cluster.deliver(send.message, from: from, to: send.to)
                seen = cluster.delivered.count
            }
        }
    }

    // MARK: Arguments

    private func expected(_ what: String) -> Mistake { Mistake(description: "expected \(what)") }

    private func index(_ arguments: [String]) throws -> ReplicaIndex {
        guard let word = arguments.first, let index = Int(word), cluster.members.indices.contains(index) else {
            throw expected("a replica")
        }
        return index
    }

    private func member(_ arguments: [String]) throws -> TestCluster.Member { cluster.members[try index(arguments)] }

    /// `<from>-><to> [<kind>]`, with `*` for any.
    private func pattern(_ arguments: [String]) throws -> (from: Int?, to: Int?, kind: Message.Kind?) {
        guard let way = arguments.first else { throw expected("<from>-><to> [<kind>]") }
        let ends = way.split(separator: ">").map { $0.replacing("-", with: "") }
        guard ends.count == 2 else { throw expected("<from>-><to>, with * for any") }
        var kind: Message.Kind?
        if arguments.count > 1 {
            kind = Message.Kind.allCases.first { "\($0)" == arguments[1] }
            guard kind != nil else { throw expected("a kind of message") }
        }
        return (Int(ends[0]), Int(ends[1]), kind)
    }

    private static func fits(
        _ from: Int, _ to: Int, _ message: Message, _ pattern: (from: Int?, to: Int?, kind: Message.Kind?)
    ) -> Bool {
        (pattern.from ?? from) == from && (pattern.to ?? to) == to && (pattern.kind ?? message.kind) == message.kind
    }

    private func useRules() {
        let rules = rules
        cluster.isLost = { from, to, message in rules.contains { Self.fits(from, to, message, $0) } }
    }

    // MARK: Output

    private var seen = 0

    /// Shows what is delivered meanwhile, and what replicas come to decide.
    private func watch(withoutRoutine: Bool = false, _ body: () -> Void) {
        let before = cluster.members.map { $0.isUp ? $0.core.decided : 0 }
        seen = cluster.delivered.count
        body()
        for (from, to, message) in cluster.delivered[seen...] {
            let isRoutine = message.kind == .heartbeat || (message.kind == .accepted && !message.flags.contains(.gap))
            if !(withoutRoutine && isRoutine) { output.append(describe(message, from, to)) }
        }
        for (index, member) in cluster.members.enumerated() where member.isUp && member.core.decided > before[index] {
            output.append("\(index) decided up to \(member.core.decided)")
        }
    }

    private func describe(_ message: Message, _ from: ReplicaIndex, _ to: ReplicaIndex) -> String {
        var text = "\(from)->\(to) \(message.kind) view \(message.view)"
        func add(_ name: String, _ value: UInt64) { text += ", \(name) \(value)" }
        func addRound() { if message.round > 0 { add("round", message.round) } }
        switch message.kind {
        case .preVote: add("decided", message.commit)
        case .preVoteGrant: break
        case .nack: add("decided", message.commit)
        case .prepare: add("after", message.instance)
        case .promise:
            add("decided", message.commit)
            add("after", message.bound)
            if message.flags.contains(.last) {
                text += ": nothing more"
            } else {
                let view = message.acceptedView == decidedView ? "decided" : "accepted in \(message.acceptedView)"
                text += ": \(message.instance) is \(describe(message.batch)), \(view)"
            }
        case .accept:
            text += ": \(message.instance) is \(describe(message.batch))"
            add("base", message.bound)
            add("commit", message.commit)
            addRound()
        case .accepted:
            add("up to", message.instance)
            add("base", message.bound)
            add("decided", message.commit)
            addRound()
            if message.flags.contains(.gap) { text += ", gap" }
            if message.flags.contains(.full) { text += ", full" }
        case .heartbeat:
            add("highest", message.instance)
            add("base", message.bound)
            add("commit", message.commit)
            addRound()
            if message.flags.contains(.quiet) { text += ", quiet" }
        case .catchUpRequest: text += ": \(message.instance) to \(message.bound)"
        case .decided:
            text += ": \(message.instance) is \(describe(message.batch))"
            add("decided", message.commit)
        case .belowFloor:
            add("floor", message.instance)
            add("decided", message.commit)
        }
        return text
    }

    private func describe(_ batch: Batch) -> String { batch.isNoop ? "no-op" : "\(batch.offset)" }

    private func showLog(_ index: ReplicaIndex) throws {
        let member = cluster.members[index]
        guard member.isUp else { throw expected("a replica that is up") }
        guard member.core.highest >= member.core.floor else {
            return output.append("empty from \(member.core.floor) on")
        }
        for instance in member.core.floor...member.core.highest {
            guard let entry = member.core.entry(at: instance) else {
                output.append("\(instance): -")
                continue
            }
            let view = entry.view == decidedView ? "fetched" : "view \(entry.view)"
            output.append("\(instance): \(describe(entry.batch)), \(view)\(entry.isDecided ? ", decided" : "")")
        }
    }

    private func showStatus(_ index: ReplicaIndex) {
        let member = cluster.members[index]
        guard member.isUp else { return output.append("\(index): down") }
        output.append(
            "\(index): \(member.core.role), view \(member.core.view), base \(member.core.base), "
                + "decided \(member.core.decided), known \(member.core.known)"
                + (member.core.needsStateTransfer ? ", needs the state" : ""))
    }
}
