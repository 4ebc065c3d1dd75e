import MPaxosConsensus
import MPaxosFrames
import MPaxosInvariants
import MPaxosPipeline
import MPaxosQueues
import MPaxosWire

/// How a connection becomes a link: HELLO, CALL, HELLO with the proof, WELCOME or REFUSED.
extension PeerLinks {
    /// Microseconds for which a HELLO without proof is not remarked on: the call takes some round trips.
    private static let proofTime: UInt64 = 3_000_000
    /// Microseconds after which such a HELLO is taken for the first of another sender.
    private static let unprovenPause: UInt64 = 1_000_000

    /// `frame` came from a connection that is no link yet. HELLO from a replica that belongs here makes it one; any
    /// other HELLO gets to know why not; all else is dropped.
    func newcomer(_ route: Route) {
        // It has a routing id of its own choice, as no replica has.
        guard route != .none else { return board.strangersRefused.add(1) }
        let holder = keyHolder
        guard holder != .stranger else {
            // Its key was withdrawn: the connection was made before that.
            sockets.end(sockets.source(of: frame))
            return board.strangersRefused.add(1)
        }
        let bytes = UnsafeRawBufferPointer(frame.bytes)
        do throws(PeerFrameError) {
            let header = try PeerHeader(decoding: bytes)
            guard header.kind >= Handshake.firstKind else { return board.strangersRefused.add(1) }
            let payload = UnsafeRawBufferPointer(rebasing: bytes[PeerHeader.size...])
            switch try Handshake(header: header, payload: payload) {
            case .hello(let hello): judge(hello, along: route)
            case .call(let call) where holder.maySpeak(for: Int(header.sender)):
                take(call, from: Int(header.sender))
            default: board.strangersRefused.add(1)
            }
        } catch .version(let version) {
            board.strangersRefused.add(1)
            let refusal = Handshake.Refusal(
                .version,
                "replica \(settings.replica) speaks version \(peerProtocolVersion) of the peer protocol, the peer version \(version): run the same release on all replicas"
            )
            complain(ofStranger: refusal.reason)
            reply(.refused(refusal), version: version) { _ = sockets.send($0, along: route) }
        } catch {
            board.strangersRefused.add(1)
        }
    }

    func judge(_ hello: Handshake.Hello, along route: Route) {
        let index = settings.members.firstIndex { $0.id == hello.replica } ?? -1
        guard hello.cluster == settings.cluster, index > settings.index, let link = links[index] else {
            board.strangersRefused.add(1)
            var refusal = Handshake.Refusal(
                .replica,
                "replica \(hello.replica) of cluster \"\(hello.cluster)\" is none that connects to replica \(settings.replica) of cluster \"\(settings.cluster)\": compare the topology files"
            )
            // Of this cluster, but of no replica that it has: then it is the members that differ.
            if hello.cluster == settings.cluster, let difference = difference(of: hello) { refusal = difference }
            complain(ofStranger: refusal.reason)
            reply(.refused(refusal)) { _ = sockets.send($0, along: route) }
            return
        }
        let holder = keyHolder
        // Before anything that it says is looked at.
        guard holder.maySpeak(for: index) else {
            board.strangersRefused.add(1)
            let refusal = foreignKey(of: holder, as: hello.replica)
            complain(ofStranger: refusal.reason)
            reply(.refused(refusal)) { _ = sockets.send($0, along: route) }
            return
        }
        guard callBack.isProof(hello.proof, of: index, along: route) else {
            let key = sockets.hasKeys ? sockets.source(of: frame).key : nil
            callBack.call(index, key: key, ticket: hello.ticket, along: route, now: now)
            return remark(onHelloWithoutProofFrom: index, link, along: route)
        }
        callBack.end(index)
        if !link.isOpen || link.route != route { sockets.trust(sockets.source(of: frame)) }
        if let refusal = objection(to: hello, from: index, keyOf: holder) {
            if refusal.life == .theirs { note(refused: hello, from: index) }
            reply(answer(to: hello, from: index, refusal)) { _ = sockets.send($0, along: route) }
            // The link that stands, if there is one, is another connection's, and goes on: unless the process that had
            // it is gone, which shows when something is sent.
            if link.isOpen, link.route != route {
                reply(.welcome(ownHello)) { if send($0, over: link) == .unreachable { link.isOpen = false } }
            }
            refuse("refused replica \(hello.replica): \(refusal.words.reason)", link)
            return
        }
        var outcome = LinkSockets.Outcome.full
        reply(.welcome(ownHello)) { outcome = sockets.send($0, along: route) }
        guard outcome == .sent else { return }
        if link.route != route { link.isOpen = false }
        link.route = route
        if sockets.hasKeys { link.source = sockets.source(of: frame) }
        take(hello, from: index, link, keyOf: holder)
    }

    /// To whom the key belongs of the connection that brought what is in `frame`.
    private var keyHolder: Acquaintances.Holder {
        guard sockets.hasKeys else { return .nobody }
        return sockets.holder(ofKey: sockets.source(of: frame).key).map { .member($0) } ?? .stranger
    }

    private func foreignKey(of holder: Acquaintances.Holder, as replica: UInt16) -> Handshake.Refusal {
        var whose = "of no replica any more"
        if case .member(let index) = holder { whose = "of replica \(settings.members[index].id)" }
        return .init(
            .unproven,
            "whoever says that it is replica \(replica) has the key \(whose): see that each host has the secret key of its own replica"
        )
    }

    /// Says, to both sides, that a HELLO which comes again and again is not from whom it names. Nothing that a replica
    /// knows is told before, nothing of that HELLO is believed.
    private func remark(onHelloWithoutProofFrom index: Int, _ link: Link, along route: Route) {
        if now >= link.unprovenAt + Self.unprovenPause { link.unprovenSince = now }
        link.unprovenAt = now
        guard now >= link.unprovenSince + Self.proofTime else { return }
        board.strangersRefused.add(1)
        let member = settings.members[index]
        let refusal = Handshake.Refusal(
            .unproven,
            "replica \(member.id) was called at \(member.peerEndpoint), where the topology of replica \(settings.replica) says that it listens, and whoever says HELLO in its name does not answer there: compare the endpoints in the topology files, see that replica \(settings.replica) can reach that one, and stop any other process of replica \(member.id)"
        )
        if link.isOpen { complain(ofStranger: refusal.reason) } else { refuse(refusal.reason, link) }
        reply(.refused(refusal)) { _ = sockets.send($0, along: route) }
    }

    /// The replica that this one connects to asks for the proof that it is this one; strangers, who do not know the
    /// ticket, are not listened to.
    private func take(_ call: Handshake.Call, from index: Int) {
        guard index < settings.index, let link = links[index], link.connects, call.ticket == link.ticket else {
            return board.strangersRefused.add(1)
        }
        // A link that stands has its proof: who calls now was told the ticket by another.
        guard !link.isOpen else { return }
        link.proof = call.challenge
        if link.helloAt != nil { link.helloAt = now }
    }

    func sayHello(over link: Link) {
        var hello = ownHello
        hello.ticket = link.ticket
        hello.proof = link.proof
        reply(.hello(hello)) { _ = send($0, over: link) }
    }

    /// Who is of an earlier life is answered as one that belongs here, if it can see that by itself: WELCOME says which
    /// life of it was met, and who says so, and by that it judges itself. So is who says that this replica is: it is to
    /// judge this one.
    private func answer(to hello: Handshake.Hello, from index: Int, _ objection: Objection) -> Handshake {
        switch objection.life {
        case .own: .welcome(ownHello)
        case .theirs where !acquaintances.records[index].life.admits(hello.life, after: hello.ancestors):
            .welcome(ownHello)
        default: .refused(objection.words)
        }
    }

    func greet(_ handshake: Handshake, _ index: Int, _ link: Link) {
        switch handshake {
        case .hello(let hello) where !link.connects: judge(hello, along: link.route)
        case .welcome(let hello) where link.connects:
            // Connected to by its key.
            let holder = sockets.hasKeys ? Acquaintances.Holder.member(index) : .nobody
            if let refusal = objection(to: hello, from: index, keyOf: holder) {
                link.isOpen = false
                if refusal.life == .theirs { note(refused: hello, from: index) }
                refuse("will not talk to replica \(settings.members[index].id): \(refusal.words.reason)", link)
                // Word that this replica itself is of an earlier life counts only here: from who answers at an endpoint
                // that the topology names, and has the cluster's name, charter, fingerprint and known incarnations
                // right. Who holds that endpoint and knows them all could stop this replica, as he could do worse; who
                // merely reaches its port, or answers REFUSED, cannot.
                if refusal.life == .own { expelled(refusal.words.reason) }
            } else {
                take(hello, from: index, link, keyOf: holder)
            }
        case .refused(let refusal):
            link.isOpen = false
            refuse("replica \(settings.members[index].id) refuses this replica: \(refusal.reason)", link)
        default:
            link.figures.framesMalformed.add(1)
        }
    }

    /// Why a peer is not taken up with: in words, and if it is a life, whose.
    struct Objection {
        enum Whose { case theirs, own }

        var words: Handshake.Refusal
        var life: Whose?
    }

    func objection(
        to hello: Handshake.Hello, from index: Int, keyOf holder: Acquaintances.Holder
    ) -> Objection? {
        let member = settings.members[index]
        if hello.cluster != settings.cluster {
            return Objection(
                words: .init(
                    .cluster,
                    "it belongs to cluster \"\(hello.cluster)\", this is \"\(settings.cluster)\": an endpoint in a topology file points to the wrong cluster"
                ))
        }
        if hello.replica != member.id {
            return Objection(
                words: .init(
                    .replica,
                    "it says it is replica \(hello.replica), replica \(member.id) was expected: compare the topology files"
                ))
        }
        if let refusal = difference(of: hello) { return Objection(words: refusal) }
        switch acquaintances.objection(to: hello.introduction, from: index, keyOf: holder) {
        case nil: return nil
        case .foreignKey(let holder): return Objection(words: foreignKey(of: holder, as: hello.replica))
        case .incarnation(let known):
            return Objection(
                words: .init(
                    .incarnation,
                    "replica \(member.id) has other pools than before (incarnation \(Self.hex(hello.incarnation)), known is \(Self.hex(known))): \(advice(hello, ofPoolsOf: member.id))"
                ))
        case .otherRecord(let other, let theirs, let known):
            return Objection(
                words: .init(
                    .incarnation,
                    "it knows replica \(settings.members[other].id) by incarnation \(Self.hex(theirs)), this replica by \(Self.hex(known)): one of them met pools that were formatted anew; \(advice(hello, ofPoolsOf: settings.members[other].id))"
                ))
        case .earlierLife(let met):
            return Objection(
                words: .init(.life, earlierLife(hello.life, of: member.id, met: met, by: settings.replica)),
                life: .theirs)
        case .ownLifeIsEarlier(let met):
            return Objection(
                words: .init(
                    .life, earlierLife(acquaintances.own.life, of: settings.replica, met: met, by: member.id)),
                life: .own)
        }
    }

    /// Puts on record whom this replica has refused: at most one a second, whatever strangers send.
    private func note(refused hello: Handshake.Hello, from index: Int) {
        guard acquaintances.refuse(hello.introduction, from: index), let link = links[index] else { return }
        guard now >= link.nextRefusalRecord else { return }
        link.nextRefusalRecord = now + 1_000_000
        announce(.refused, index, life: hello.life)
    }

    /// What to do where a replica is met with other pools than before.
    private func advice(_ hello: Handshake.Hello, ofPoolsOf replica: UInt16) -> String {
        if acquaintances.isFounded || hello.founding == .founded {
            return
                "a replica that lost its pools has forgotten its promises and may not vote; bring the old pools of replica \(replica) back, and if they are gone leave it stopped: the others go on without it"
        }
        // Neither of the two is founded, but another may be.
        return
            "bring the old pools of replica \(replica) back; if they are gone, and no replica of this cluster was ever ready, stop all replicas, move the pools of all away, format all anew, and start all"
    }

    /// One sentence for the logs of both.
    private func earlierLife(_ life: Life, of replica: UInt16, met: Life, by other: UInt16) -> String {
        let count =
            switch met.bootCount {
            case life.bootCount: "this one too, in another process"
            case ..<life.bootCount: "\(met.bootCount), in a start of which these pools know nothing"
            default: "\(met.bootCount)"
            }
        return
            "replica \(replica) runs from pools of an earlier time, or two processes run on copies of its pools: its boot count is \(life.bootCount), replica \(other) has met \(count); it has forgotten votes that were counted, and may not vote: run it from its newest pools, once, and if they are gone \(acquaintances.isFounded ? "leave it stopped" : "leave it stopped, or, where no replica of this cluster was ever ready, move the pools of all away and format all anew")"
    }

    /// What the two were formatted for, or were told to skip, and is not alike. The sentence names both sides, since it
    /// goes into the logs of both.
    private func difference(of hello: Handshake.Hello) -> Handshake.Refusal? {
        let terms = settings.charter.differences(from: hello.charter)
        if !terms.isEmpty {
            let facts = terms.map { term in
                "replica \(settings.replica) has \(settings.charter.statement(of: term)), replica \(hello.replica) has \(hello.charter.statement(of: term))"
            }
            return .init(
                terms.contains(.members) ? .members : .charter,
                "\(facts.joined(separator: "; ")): they would not vote among the same replicas, or not execute alike; use the same topology file and the same program on every host, and pools that were formatted for them"
            )
        }
        guard hello.fingerprint == settings.fingerprint else {
            return .init(
                .charter,
                "the state pools of replica \(settings.replica) and replica \(hello.replica) are laid out differently (fingerprints \(Self.hex(settings.fingerprint)) and \(Self.hex(hello.fingerprint))): they were formatted by different releases. Run the release on both that made their pools, or begin a new cluster with new pools on all replicas"
            )
        }
        if let disagreement = skipping.disagreement(with: hello.skipping) {
            let ids = [settings.replica, hello.replica]
            let (skips, does) = disagreement.isOwn ? (ids[0], ids[1]) : (ids[1], ids[0])
            return .init(.skipping, Self.words(for: disagreement, skips: skips, does: does))
        }
        return nil
    }

    private static func words(for disagreement: Skipping.Disagreement, skips: UInt16, does: UInt16) -> String {
        let places = disagreement.positions.map { String($0) }.joined(separator: ", ")
        let options = disagreement.positions.map { "--skip-record \($0)" }.joined(separator: " ")
        if disagreement.isExecuted {
            return
                "replica \(skips) is to skip what replica \(does) has executed, at position \(places): start replica \(skips) without \(options)"
        }
        let lost =
            disagreement.isCutShort
            ? "; it may have skipped others before, which it has forgotten: look for them in its log" : ""
        return
            "replica \(skips) skips the command at position \(places), replica \(does) does not and has not passed it: start replica \(does) with \(options) until it has passed it, or, where no log has named that position, replica \(skips) without\(lost)"
    }

    private var skipping: Skipping { Skipping(position: progress.position, named: settings.skips) }

    /// The peer said HELLO or WELCOME, and there is no objection: the link opens, if it is not open yet, and what the
    /// peer knows is taken note of.
    private func take(
        _ hello: Handshake.Hello, from index: Int, _ link: Link, keyOf holder: Acquaintances.Holder
    ) {
        link.introducedAt = now
        let refused = acquaintances.refused[index]
        let news = acquaintances.meet(hello.introduction, from: index, keyOf: holder)
        if acquaintances.refused[index] != refused { announce(.refused, index, life: acquaintances.refused[index]) }
        let isNews = !link.isOpen || news & 1 << UInt16(index) != 0
        link.isFounded = hello.founding == .founded
        for (other, theirs) in zip(0..., hello.members) {
            if isNews,
                theirs.peerEndpoint != settings.members[other].peerEndpoint
                    || theirs.clientEndpoint != settings.members[other].clientEndpoint
            {
                logger.warning(
                    "replica \(hello.replica) has other endpoints for replica \(theirs.id) in its topology: \(theirs.peerEndpoint), \(theirs.clientEndpoint)"
                )
            }
            guard other != index, news & 1 << UInt16(other) != 0 else { continue }
            // Of another life than was met here: it has to say HELLO anew.
            links[other]?.isOpen = false
            announce(.hearsay, other)
        }
        guard isNews else { return }
        link.isOpen = true
        link.complaint = nil
        link.figures.refusal.set(nil)
        link.refusedAt = nil
        logger.info("linked to replica \(hello.replica)")
        announce(.connected, index)
    }

    /// - Parameter life: another than the one in which the member was met.
    func announce(_ kind: Arrival.Kind, _ index: Int, life: Life? = nil) {
        let record = acquaintances.records[index]
        let pushed = arrivals.push(
            Arrival(
                kind: kind, peer: UInt8(index), incarnation: record.incarnation, life: life ?? record.life,
                frame: RawFrame()))
        invariant(pushed, "a ring with room takes an arrival")
    }

    /// At most one a second, whatever strangers send.
    private func complain(ofStranger text: String) {
        guard now >= nextStrangerComplaint else { return }
        nextStrangerComplaint = now + 1_000_000
        logger.error("refused a peer: \(text)")
    }

    /// A complaint that STATUS shows, too, as long as there is no link.
    func refuse(_ text: String, _ link: Link) {
        if !link.isOpen {
            link.figures.refusal.set(text)
            link.refusedAt = now
        }
        complain(text, about: link)
    }

    /// Who is refused tries again all the time; who does not is gone, and is refused for nothing.
    func forgetRefusal(of link: Link) {
        guard let refusedAt = link.refusedAt, now >= refusedAt + Self.refusalTime else { return }
        link.refusedAt = nil
        link.complaint = nil
        link.figures.refusal.set(nil)
    }

    /// The same is said once, and anything at most once a second: a stranger may pass for the peer until it is linked.
    func complain(_ text: String, about link: Link) {
        guard link.complaint != text, now >= link.nextComplaint else { return }
        link.complaint = text
        link.nextComplaint = now + 1_000_000
        logger.error("\(text)")
    }

    var ownHello: Handshake.Hello {
        let introduction = acquaintances.introduction
        var members = settings.members
        for (index, record) in introduction.records.enumerated() {
            members[index].incarnation = record.incarnation
            members[index].life = record.life
        }
        return Handshake.Hello(
            cluster: settings.cluster, replica: settings.replica, incarnation: introduction.incarnation,
            life: introduction.life, ancestors: introduction.ancestors, founding: introduction.founding,
            skipping: skipping, charter: settings.charter, fingerprint: settings.fingerprint, members: members)
    }

    func reply(
        _ handshake: Handshake, version: UInt8 = peerProtocolVersion, send: (borrowing Frame) -> Void
    ) {
        let frame = Frame()
        handshake.encode(sender: UInt8(settings.index), version: version).withUnsafeBytes { frame.rebuild(copying: $0) }
        send(frame)
    }

    private static func hex(_ value: UInt64) -> String { String(value, radix: 16) }
}
