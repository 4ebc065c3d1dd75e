import Glibc
import MPaxosConsensus
import MPaxosInvariants
import MPaxosKeyValueFormat
import MPaxosStateMachines
import MPaxosStorage
import MPaxosWire

/// What all replicas together may do and say, held against the decided log, executed once more (`Reference`).
struct ClusterChecker {
    let reference: Reference<SimulatedMachine>
    /// Each instance's batch, from 1.
    private var decided: [[UInt8]] = []
    /// The highest position that any client was told.
    private(set) var acknowledged: UInt64 = 0
    /// By key: each value that it had, and from which position on.
    private var versions: [[UInt8]: [(position: UInt64, value: [UInt8]?)]] = [:]
    /// Effects that were looked at.
    private var applied = 0
    private var executions: Set<SessionCommand> = []
    /// By replica: what its messages have told.
    private var promised: [View]
    /// By replica and instance: the highest view for which it said that it accepted, or 0.
    private var accepted: [[View]]
    /// By replica: the last view in which it said so, and up to where without a gap.
    private var run: [(view: View, last: Instance)]

    private struct SessionCommand: Hashable {
        let session: UInt64
        let sequence: UInt64
    }

    init(reference: Reference<SimulatedMachine>, count: Int) {
        self.reference = reference
        promised = Array(repeating: 0, count: count)
        accepted = Array(repeating: [], count: count)
        run = Array(repeating: (0, 0), count: count)
    }

    var highestDecided: Instance { Instance(decided.count) }

    // MARK: Agreement

    mutating func decided(_ instance: Instance, _ batch: UnsafeRawBufferPointer, by replica: Int) -> String? {
        if instance <= highestDecided {
            return isDecided(instance, batch)
                ? nil : "replica \(replica) decided another batch for instance \(instance) than others"
        }
        guard instance == highestDecided + 1 else {
            return "replica \(replica) decided instance \(instance), and nobody \(highestDecided + 1)"
        }
        decided.append(Array(batch))
        reference.extend(batch)
        return look()
    }

    private func isDecided(_ instance: Instance, _ batch: UnsafeRawBufferPointer) -> Bool {
        decided[Int(instance) - 1].withUnsafeBytes {
            $0.count == batch.count && ($0.isEmpty || memcmp($0.baseAddress!, batch.baseAddress!, $0.count) == 0)
        }
    }

    /// What the next instance has changed, by rules that are not those of the replicas' code.
    private mutating func look() -> String? {
        while applied < reference.effects.count {
            let effect = reference.effects[applied]
            applied += 1
            guard effect.request.kind == CommandCode.submit.rawValue, effect.status == StatusCode.ok.rawValue else {
                continue
            }
            if effect.request.session != 0,
                !executions.insert(.init(session: effect.request.session, sequence: effect.request.sequence)).inserted
            {
                return "command \(effect.request.sequence) of session \(effect.request.session) took effect twice"
            }
            if let violation = apply(effect, at: UInt64(applied)) { return violation }
        }
        return nil
    }

    private mutating func apply(_ effect: Reference<SimulatedMachine>.Effect, at position: UInt64) -> String? {
        let body = effect.request.body
        let length = Int(body[1]) | Int(body[2]) << 8
        let key = Array(body[5..<5 + length])
        let before = versions[key]?.last?.value ?? nil
        guard effect.body == Self.reply(before) else {
            return "the command at position \(position) is answered wrongly"
        }
        switch body[0] {
        case KeyValueCommand.Operation.put.rawValue:
            versions[key, default: []].append((position, Array(body[(5 + length)...])))
        case KeyValueCommand.Operation.delete.rawValue: versions[key, default: []].append((position, nil))
        default: break
        }
        return nil
    }

    private static func reply(_ value: [UInt8]?) -> [UInt8] { value.map { [1] + $0 } ?? [0] }

    /// Where a replica's state stands.
    func stands(_ replica: Int, executed: UInt64, _ digest: UInt64, at position: UInt64) -> String? {
        guard executed < reference.digests.count else {
            return "replica \(replica) executed instance \(executed), which nobody decided"
        }
        guard position == reference.positions[Int(executed)] else {
            return
                "replica \(replica) is at position \(position) after instance \(executed), not \(reference.positions[Int(executed)])"
        }
        guard digest == reference.digests[Int(executed)] else {
            return "replica \(replica) has another state after instance \(executed)"
        }
        return nil
    }

    // MARK: Clients

    /// A reply has reached the client that waited for it.
    mutating func acknowledge(
        _ operation: ClusterClient.Operation, _ reply: ReplyHeader, _ body: [UInt8], by client: ClusterClient
    ) -> String? {
        let what = "operation \(client.completed + 1) of client \(client.index)"
        guard reply.position <= reference.position else {
            return "\(what) is answered with position \(reply.position) of \(reference.position)"
        }
        let isQuery = operation.kind == .query || operation.kind == .local
        guard isQuery ? reply.position >= operation.floor : reply.position > operation.floor else {
            return "\(what) took effect at \(reply.position); when it began, \(operation.floor) had been answered"
        }
        acknowledged = max(acknowledged, reply.position)
        if isQuery {
            let key = Array(operation.body[5...])
            let value = versions[key]?.last { $0.position <= reply.position }?.value ?? nil
            return body == Self.reply(value) ? nil : "\(what) saw what was not there at position \(reply.position)"
        }
        let effect = reference.effects[Int(reply.position) - 1]
        let isOf =
            operation.kind == .open
            ? effect.request.kind == CommandCode.open.rawValue && effect.session == reply.session
            : effect.request
                == .init(
                    kind: operation.header.command, session: operation.header.session,
                    sequence: operation.header.sequence, body: operation.body)
        guard isOf else { return "\(what) did not take effect at \(reply.position), as its reply says" }
        guard effect.status == reply.status.rawValue, effect.body == body else {
            return "\(what) is answered otherwise than when it took effect"
        }
        return nil
    }

    /// What was sent once, without a session, and never repeated, takes effect once at most.
    func unsessionedTwice() -> String? {
        let most = reference.unsessioned.values.max() ?? 0
        return most > 1 ? "a command that was sent once took effect \(most) times" : nil
    }

    // MARK: What messages tell

    /// A frame leaves: from now on it binds its sender.
    mutating func sent(_ frame: [UInt8], by replica: Int) -> String? {
        frame.withUnsafeBytes { bytes in
            guard let decoded = try? PeerFrame(decoding: bytes) else {
                return "replica \(replica) sends what is no frame"
            }
            guard decoded.sender == replica else { return "replica \(replica) sends in the name of \(decoded.sender)" }
            guard case .message(let message) = decoded.content else { return nil }
            switch message.kind {
            case .promise: promised[replica] = max(promised[replica], message.view)
            case .accept:
                promised[replica] = max(promised[replica], message.view)
                binds(replica, message.instance, message.view)
            case .accepted:
                promised[replica] = max(promised[replica], message.view)
                // What it said before in this view needs not be looked at again.
                let isKnown = run[replica].view == message.view && message.bound <= run[replica].last
                var instance = (isKnown ? run[replica].last : message.bound) + 1
                run[replica] = (message.view, isKnown ? max(run[replica].last, message.instance) : message.instance)
                while instance <= message.instance {
                    binds(replica, instance, message.view)
                    instance += 1
                }
            default: break
            }
            return nil
        }
    }

    private mutating func binds(_ replica: Int, _ instance: Instance, _ view: View) {
        let place = Int(instance)
        if place >= accepted[replica].count {
            accepted[replica] += repeatElement(0, count: place + 1 - accepted[replica].count)
        }
        accepted[replica][place] = max(accepted[replica][place], view)
    }

    /// A replica has recovered: nothing that a message told is lost.
    mutating func recovered(_ replica: Int, _ acceptor: AcceptorPool, executed: UInt64) -> String? {
        var found: [Instance: View] = [:]
        var highest = acceptor.promised
        var wrong: Instance?
        acceptor.forEachEntry { instance, view, batch in
            found[instance] = view
            if view != decidedView { highest = max(highest, view) }
            if instance > executed, instance < accepted[replica].count, view < accepted[replica][Int(instance)] {
                if instance > highestDecided || !isDecided(instance, acceptor.bytes(of: batch)) { wrong = instance }
            }
        }
        if let wrong { return "replica \(replica) fell back to an earlier view for instance \(wrong)" }
        guard highest >= promised[replica] else {
            return "replica \(replica) forgot its promise of \(promised[replica]), knows \(highest)"
        }
        for place in accepted[replica].indices.dropFirst(Int(executed) + 1)
        where accepted[replica][place] != 0 && found[Instance(place)] == nil {
            return "replica \(replica) lost its vote for instance \(place)"
        }
        for place in accepted[replica].indices.prefix(Int(executed) + 1) { accepted[replica][place] = 0 }
        return nil
    }
}
