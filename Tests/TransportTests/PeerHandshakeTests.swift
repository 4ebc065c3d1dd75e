import MPaxosConsensus
import MPaxosWire
import Testing

@testable import MPaxosTransport

/// HELLO at the peer port of a replica: who becomes its link, who is refused, and what is said about it.
@Suite struct PeerHandshakeTests {
    @Test(arguments: [false, true]) func whoWasFormattedAlikeIsLinked(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        let answer = try #require(try rig.answer(to: rig.proven(rig.hello)))
        guard case .welcome(let welcome) = answer.handshake else {
            Issue.record("\(answer.handshake)")
            return
        }
        #expect(welcome.replica == 0 && welcome.charter == charter && welcome.fingerprint == rig.hello.fingerprint)
        #expect(rig.isConnected && rig.board.peers[2].refusal.read() == nil && rig.log.errors.isEmpty)
    }

    static let differences: [(String, Handshake.Refusal.Cause, String, String)] = [
        ("members", .members, "replica 0 has members = 0, 1, 2", "replica 2 has members = 0, 2"),
        ("max_request", .charter, "replica 0 has max_request = 1 MiB", "replica 2 has max_request = 2 MiB"),
        ("sessions", .charter, "replica 0 has sessions = 64", "replica 2 has sessions = 65"),
        ("state_size", .charter, "replica 0 has state_size = 32 MiB", "replica 2 has state_size = 33 MiB"),
        ("machine", .charter, "replica 0 has machine = 'Machine' version 1", "machine = 'Other' version 1"),
        ("version", .charter, "replica 0 has machine = 'Machine' version 1", "machine = 'Machine' version 2"),
        ("layout", .charter, "replica 0 and replica 2 are laid out differently", "different releases"),
    ]

    /// The sentence is in the answer, in the log and in STATUS; once the peer is as it should be, it is linked.
    @Test(arguments: differences, [false, true])
    func whoDiffersIsRefused(_ difference: (String, Handshake.Refusal.Cause, String, String), keys: Bool) throws {
        let (what, cause, ours, theirs) = difference
        let rig = try HandshakeRig(keys: keys)
        var hello = rig.hello
        switch what {
        case "members":
            hello.members.remove(at: 1)
            hello.charter.members = [0, 2]
        case "max_request": hello.charter.maxRequest = 2 << 20
        case "sessions": hello.charter.sessions = 65
        case "state_size": hello.charter.stateSize = 33 << 20
        case "machine": hello.charter.machine = "Other"
        case "version": hello.charter.machineVersion = 2
        default: break
        }
        hello.fingerprint = hello.charter.fingerprint(layout: what == "layout" ? 2 : 1)
        for _ in 0..<2 {
            let answer = try #require(try rig.answer(to: rig.proven(hello)))
            guard case .refused(let refusal) = answer.handshake else {
                Issue.record("\(answer.handshake)")
                return
            }
            #expect(refusal.cause == cause)
            let shown = try #require(rig.board.peers[2].refusal.read())
            for text in [refusal.reason, shown, rig.log.errors.last ?? ""] {
                #expect(text.contains(ours) && text.contains(theirs), "\(text)")
            }
        }
        #expect(!rig.isConnected && rig.log.errors.count == 1, "said once")
        _ = try rig.answer(to: rig.proven(rig.hello))
        #expect(rig.isConnected && rig.board.peers[2].refusal.read() == nil)
    }

    /// A link that stands is not the one that is refused; it stands as long as its process does.
    @Test(arguments: [false, true]) func whoIsRefusedDoesNotDisturbALinkThatStands(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        _ = try rig.answer(to: rig.proven(rig.hello))
        #expect(rig.isConnected)
        var hello = rig.hello
        hello.charter.sessions = 65
        let differing = try rig.proven(hello, byOther: true)
        for _ in 0..<2 { _ = try rig.answer(to: differing, byOther: true) }
        #expect(rig.isConnected && rig.board.peers[2].refusal.read() == nil && rig.log.errors.count == 1)
        rig.disconnect()
        rig.send(differing, byOther: true) {
            _ = try? rig.answer(to: differing, byOther: true)
            return !rig.isConnected
        }
        #expect(rig.board.peers[2].refusal.read()?.contains("sessions = 65") == true)
    }

    /// A replica that the topology here does not have is told which members differ, not only that it is a stranger.
    @Test(arguments: [false, true]) func aMemberOfAnotherTopologyLearnsWhichMembersDiffer(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        var hello = rig.hello
        hello.replica = 3
        hello.members[2].id = 3
        hello.charter.members = [0, 1, 3]
        let answer = try #require(try rig.answer(to: Handshake.hello(hello).encode(sender: 2)))
        guard case .refused(let refusal) = answer.handshake else {
            Issue.record("\(answer.handshake)")
            return
        }
        #expect(refusal.cause == .members)
        #expect(refusal.reason.contains("members = 0, 1, 2") && refusal.reason.contains("members = 0, 1, 3"))
        #expect(rig.log.errors.count == 1 && rig.board.strangersRefused.load() == 1)
    }

    /// Until it has passed the command, or skips it as well; and the other way round.
    @Test(arguments: [false, true]) func whoWouldExecuteWhatIsSkippedHereIsRefused(keys: Bool) throws {
        let rig = try HandshakeRig(skips: [57], keys: keys)
        var hello = rig.hello
        let ahead =
            "replica 0 skips the command at position 57, replica 2 does not and has not passed it: start replica 2 with --skip-record 57 until it has passed it, or, where no log has named that position, replica 0 without"
        let executed =
            "replica 0 is to skip what replica 2 has executed, at position 57: start replica 0 without --skip-record 57"
        let cases: [(UInt64, [UInt64], String?)] = [
            (3, [], ahead), (56, [], ahead), (57, [], executed), (56, [57], nil), (58, [57], nil),
        ]
        for (position, named, sentence) in cases {
            hello.skipping = Skipping(position: position, named: named)
            let answer = try #require(try rig.answer(to: rig.proven(hello)))
            if let sentence {
                #expect(answer.handshake == .refused(.init(.skipping, sentence)))
            } else if case .refused(let refusal) = answer.handshake {
                Issue.record("\(refusal)")
            }
            #expect(rig.isConnected == (sentence == nil))
            #expect((rig.board.peers[2].refusal.read() == nil) == (sentence == nil))
        }
        rig.progress.position = 57
        hello.skipping.named = [58]
        let answer = try #require(try rig.answer(to: rig.proven(hello, byOther: true), byOther: true))
        guard case .refused(let refusal) = answer.handshake else {
            Issue.record("\(answer.handshake)")
            return
        }
        #expect(refusal.reason.hasPrefix("replica 2 skips the command at position 58, replica 0 does not"))
    }

    // MARK: Strangers

    /// Who has no proof is not believed, not answered, and not put on record, whatever else it knows: neither where the
    /// replica that it names is linked, nor where nobody has met it yet.
    @Test(arguments: [true, false], [false, true]) func aStrangerPassesForNobody(isFounded: Bool, keys: Bool) throws {
        let rig = try HandshakeRig(isFounded: isFounded, keys: keys)
        var forged = rig.hello
        forged.ticket = 9
        forged.life = Life(bootCount: 1 << 40, nonce: 1)
        forged.ancestors = [rig.hello.life.nonce]
        for proof: UInt64 in [0, 1, .max] {
            forged.proof = proof
            let calls = rig.calls
            rig.send(Handshake.hello(forged).encode(sender: 2), byOther: true) { rig.calls > calls }
            rig.turn()
        }
        #expect(!rig.isConnected && !rig.otherHasAnswer)
        #expect(isFounded || rig.board.awaited == 0b110)
        _ = try rig.answer(to: rig.proven(rig.hello))
        #expect(rig.isConnected, "nothing of the stranger is held against the replica")
        let calls = rig.calls
        rig.send(Handshake.hello(forged).encode(sender: 2), byOther: true) { rig.calls > calls }
        rig.turn()
        #expect(rig.isConnected && rig.log.errors.isEmpty)
    }

    /// A challenge is for one connection: who reads it over a link of its own cannot use it along another.
    @Test(arguments: [false, true]) func aProofIsOfOneConnection(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        let proven = try rig.proven(rig.hello)
        let calls = rig.calls
        rig.send(proven, byOther: true) { rig.calls > calls }
        #expect(!rig.isConnected)
        _ = try rig.answer(to: proven)
        #expect(rig.isConnected)
    }

    /// It may be the replica, at another endpoint than the topology has here: both sides get to know.
    @Test(arguments: [false, true]) func whoDoesNotAnswerAtItsEndpointIsToldSo(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        var hello = rig.hello
        hello.ticket = 9
        let frame = Handshake.hello(hello).encode(sender: 2)
        let end = rig.now + 2_900_000
        while rig.now < end {
            rig.send(frame, byOther: true) { true }
            for _ in 0..<100 { rig.turn() }
        }
        #expect(rig.log.errors.isEmpty && rig.board.peers[2].refusal.read() == nil)
        while rig.now < end + 200_000 { rig.turn() }
        let answer = try #require(try rig.answer(to: frame, byOther: true))
        guard case .refused(let refusal) = answer.handshake else {
            Issue.record("\(answer.handshake)")
            return
        }
        #expect(refusal.cause == .unproven)
        for text in [refusal.reason, rig.board.peers[2].refusal.read() ?? "", rig.log.errors.last ?? ""] {
            #expect(text.contains("replica 2 was called at \(rig.hello.members[2].peerEndpoint)"), "\(text)")
        }
        rig.send(try rig.proven(rig.hello)) { rig.isConnected }
        #expect(rig.isConnected && rig.board.peers[2].refusal.read() == nil)
    }

    @Test(arguments: [false, true]) func anotherProtocolIsRefusedInItsOwnVersion(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        for version in [peerProtocolVersion - 1, peerProtocolVersion + 1] {
            let answer = try #require(
                try rig.answer(to: Handshake.hello(rig.hello).encode(sender: 2, version: version)))
            #expect(answer.header[4] == version)
            guard case .refused(let refusal) = answer.handshake else { continue }
            #expect(refusal.reason.contains("version \(peerProtocolVersion)"))
            #expect(refusal.reason.contains("version \(version)") && refusal.reason.contains("same release"))
        }
        #expect(rig.board.strangersRefused.load() == 2 && !rig.isConnected)
    }

    /// Counted, and not answered.
    @Test(arguments: [false, true]) func aMalformedHelloIsCounted(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        var longName = rig.hello
        longName.charter.machine = String(repeating: "m", count: 256)
        var lines = rig.hello
        lines.charter.machine = "a\nb"
        var tenMembers = rig.hello
        tenMembers.members = (0..<10).map {
            .init(id: $0, incarnation: 0, life: .none, peerEndpoint: "p", clientEndpoint: "c")
        }
        tenMembers.charter.members = Array(0..<10)
        for (count, hello) in zip(1..., [longName, lines, tenMembers]) {
            rig.send(Handshake.hello(hello).encode(sender: 2)) { rig.board.strangersRefused.load() == UInt64(count) }
            #expect(rig.board.strangersRefused.load() == UInt64(count))
        }
        #expect(!rig.isConnected && rig.board.peers[2].refusal.read() == nil)
        _ = try rig.answer(to: rig.proven(rig.hello))
        #expect(rig.isConnected)
    }

    /// It gets to know which life of it was met, by which it judges itself.
    @Test(
        arguments: [Life(bootCount: 4, nonce: 44), Life(bootCount: 5, nonce: 56), Life(bootCount: 6, nonce: 56)],
        [false, true])
    func aPeerOfAnEarlierLifeOrOfACopyIsRefused(life: Life, keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        _ = try rig.answer(to: rig.proven(rig.hello))
        rig.disconnect()
        var hello = rig.hello
        hello.life = life
        hello.ancestors = [54, 53]
        let frame = try rig.proven(hello, byOther: true)
        for _ in 0..<2 {
            guard case .welcome(let welcome) = try #require(try rig.answer(to: frame, byOther: true)).handshake else {
                Issue.record("it is not answered with what was met")
                return
            }
            #expect(welcome.members[2].life == rig.hello.life && welcome.life == rig.own)
        }
        rig.send(frame, byOther: true) {
            _ = try? rig.answer(to: frame, byOther: true)
            return !rig.isConnected
        }
        let met = "replica 0 has met " + (life.bootCount == 5 ? "this one too" : "5")
        for text in [rig.board.peers[2].refusal.read() ?? "", rig.log.errors.last ?? ""] {
            #expect(text.contains("replica 2 runs from pools of an earlier time"), "\(text)")
            #expect(text.contains("its boot count is \(life.bootCount)") && text.contains(met), "\(text)")
        }
        #expect(rig.log.errors.count == 1, "said once")
        hello.life = Life(bootCount: 7, nonce: 66)
        hello.ancestors = [65, 55, 54]
        rig.send(try rig.proven(hello, byOther: true), byOther: true) { rig.isConnected }
        #expect(rig.isConnected && rig.board.peers[2].refusal.read() == nil, "its next start is welcome")
    }

    /// The process that goes on is not disturbed by one on a copy of its pools.
    @Test(arguments: [false, true]) func aCopyDoesNotCutOffWhoItIsACopyOf(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        _ = try rig.answer(to: rig.proven(rig.hello))
        var hello = rig.hello
        hello.life.nonce += 1
        for _ in 0..<3 { _ = try rig.answer(to: rig.proven(hello, byOther: true), byOther: true) }
        #expect(rig.isConnected && rig.log.errors.count == 1)
    }

    /// Who merely reaches the port cannot stop a replica by saying that it is of an earlier life: it is no link, and
    /// said.
    @Test(
        arguments: [Life(bootCount: 4, nonce: 44), Life(bootCount: 3, nonce: 34), Life(bootCount: 2, nonce: 30)],
        [false, true])
    func aPeerThatMetALaterLifeOfThisReplicaIsNotLinked(met: Life, keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        var hello = rig.hello
        hello.members[0].life = met
        let answer = try #require(try rig.answer(to: rig.proven(hello)))
        guard case .welcome(let welcome) = answer.handshake else {
            Issue.record("it is not given what it judges this replica by: \(answer.handshake)")
            return
        }
        #expect(welcome.life == rig.own)
        for text in [rig.board.peers[2].refusal.read() ?? "", rig.log.errors.last ?? ""] {
            #expect(text.contains("replica 0 runs from pools of an earlier time"), "\(text)")
            #expect(text.contains("its boot count is 3"), "\(text)")
        }
        #expect(!rig.isConnected)
    }

    /// What one peer has met of another counts here, too.
    @Test(arguments: [false, true]) func hearsayOfALaterLifeCounts(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys, holder: 1)
        var other = rig.hello
        other.replica = 1
        other.incarnation = 11
        other.members[2].life = Life(bootCount: 6, nonce: 66)
        _ = try rig.answer(to: rig.proven(rig.hello))
        #expect(rig.isConnected)
        _ = try rig.answer(to: rig.proven(other, byOther: true), byOther: true)
        #expect(!rig.isConnected, "its link was that of an earlier life")
        _ = try rig.answer(to: rig.proven(rig.hello))
        #expect(!rig.isConnected && rig.board.peers[2].refusal.read()?.contains("has met 6") == true)
    }

    // MARK: The founding

    /// What a replica tells of others is what it has on durable record; it is founded when all others have said that
    /// they have all.
    @Test(arguments: [false, true]) func theFoundingTakesTheWordOfAll(keys: Bool) throws {
        let rig = try HandshakeRig(isFounded: false, keys: keys, holder: 1)
        var hellos = [1, 2].map { id in
            var hello = rig.hello
            hello.replica = UInt16(id)
            hello.incarnation = UInt64(id) + 10
            return hello
        }
        func say(_ id: Int) throws -> Handshake.Hello? {
            let frame = try rig.proven(hellos[id - 1], byOther: id == 1)
            guard case .welcome(let welcome)? = try rig.answer(to: frame, byOther: id == 1)?.handshake else {
                return nil
            }
            return welcome
        }
        #expect(try say(2) != nil && rig.isConnected && rig.board.awaited == 0b110)
        rig.progress.record(12, of: 2)
        rig.turn()
        #expect(rig.board.awaited == 0b010)
        #expect(try say(1) != nil)
        #expect(try say(2)?.founding == .gathering, "it is not durable")
        rig.progress.record(11, of: 1)
        rig.turn()
        rig.turn()
        #expect(rig.board.awaited == 0b110, "both have to say that they have met all")
        #expect(try say(1)?.members.map(\.incarnation) == [10, 11, 12])
        #expect(try say(1)?.founding == .whole)
        #expect(rig.board.awaited == 0b110)
        for id in [1, 2] {
            hellos[id - 1].founding = .whole
            for member in 0...2 { hellos[id - 1].members[member].incarnation = UInt64(member) + 10 }
            #expect(rig.foundings == 0)
            #expect(try say(id) != nil)
            rig.turn()
        }
        #expect(rig.foundings == 1 && rig.board.awaited == 0)
        rig.turn()
        #expect(rig.foundings == 1, "once")
        #expect(try say(1)?.founding == .whole)
        rig.progress.founding = .founded
        rig.turn()
        #expect(try say(1)?.founding == .founded, "else they would ask for ever")
    }

    /// A member that was met and is not heard any more may have lost its pools meanwhile: it is to be met again.
    @Test(arguments: [false, true]) func whoFallsSilentBeforeTheRecordIsWholeIsAwaitedAgain(keys: Bool) throws {
        let rig = try HandshakeRig(isFounded: false, keys: keys)
        _ = try rig.answer(to: rig.proven(rig.hello))
        rig.progress.record(12, of: 2)
        rig.turn()
        #expect(rig.board.awaited == 0b010)
        let end = rig.now + 300_000
        while rig.now < end { rig.turn() }
        #expect(rig.board.awaited == 0b110)
        _ = try rig.answer(to: rig.proven(rig.hello))
        rig.turn()
        #expect(rig.board.awaited == 0b010)
    }

    /// Before the founding pools may be formatted again; who has others than those on record is refused after it, and
    /// by whoever has met all.
    @Test(arguments: [false, true], [false, true]) func otherPoolsAreRefusedOnceAllAreOnRecord(
        isFounded: Bool, keys: Bool
    ) throws {
        let rig = try HandshakeRig(isFounded: isFounded, keys: keys)
        _ = try rig.answer(to: rig.proven(rig.hello))
        var hello = rig.hello
        hello.incarnation = 99
        hello.life = Life(bootCount: 1, nonce: 1)
        hello.founding = .gathering
        for member in 0...2 { hello.members[member].incarnation = 0 }
        let answer = try #require(try rig.answer(to: rig.proven(hello, byOther: true), byOther: true))
        if isFounded {
            guard case .refused(let refusal) = answer.handshake else {
                Issue.record("\(answer.handshake)")
                return
            }
            #expect(refusal.cause == .incarnation && refusal.reason.contains("other pools than before"))
            #expect(refusal.reason.contains("leave it stopped"))
        } else {
            guard case .welcome = answer.handshake else {
                Issue.record("\(answer.handshake)")
                return
            }
        }
        #expect(rig.isConnected)
    }

    /// Whoever comes after a life that was refused is refused, also where the life that was met is too long ago to be
    /// named.
    @Test(arguments: [false, true]) func whatComesAfterARefusedLifeIsRefused(keys: Bool) throws {
        let rig = try HandshakeRig(keys: keys)
        _ = try rig.answer(to: rig.proven(rig.hello))
        rig.disconnect()
        var hello = rig.hello
        var nonces: [UInt64] = [999]
        for count in 6...60 as ClosedRange<UInt64> {
            hello.life = Life(bootCount: count, nonce: 1000 + count)
            hello.ancestors = Array(nonces.prefix(Life.mostAncestors))
            nonces.insert(hello.life.nonce, at: 0)
            let frame = try rig.proven(hello, byOther: true)
            // The link that stood is found to be gone when something is sent.
            if rig.isConnected {
                rig.send(frame, byOther: true) {
                    _ = try? rig.answer(to: frame, byOther: true)
                    return !rig.isConnected
                }
            }
            rig.send(frame, byOther: true) {
                rig.board.peers[2].refusal.read()?.contains("its boot count is \(count),") == true
            }
            #expect(rig.board.peers[2].refusal.read()?.contains("its boot count is \(count),") == true)
        }
        // Its newest pools were started as often; they do not come after any of those.
        hello.life = Life(bootCount: 50, nonce: 5000)
        hello.ancestors = (1...31).map { 4000 + $0 }
        rig.send(try rig.proven(hello, byOther: true), byOther: true) { rig.isConnected }
        #expect(rig.isConnected)
    }
}
