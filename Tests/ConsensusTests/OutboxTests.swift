import MPaxosConsensus
import Testing

@testable import MPaxosSimulation

/// What the simulated driver does with messages that wait for their link: as the node is to.
@Suite struct OutboxTests {
    private let batch = Batch(offset: 1, length: 8, checksum: 1)

    private func proposal(_ instance: Instance, view: View = 3) -> Message {
        Message(kind: .accept, view: view, instance: instance, bound: 0, commit: 0, batch: batch)
    }

    private func heartbeat(_ instance: Instance, view: View = 3) -> Message {
        Message(kind: .heartbeat, view: view, instance: instance)
    }

    private func instances(_ lane: borrowing Outbox.Lane) -> [Instance] { lane.messages.elements.map(\.instance) }

    @Test func aHeartbeatSpeaksOfWhatWentOut() {
        var box = Outbox()
        #expect(box.highestSent(of: heartbeat(9)) == 9)
        for instance in [7, 8, 9] as [Instance] { box.enqueue(proposal: proposal(instance)) }
        #expect(box.highestSent(of: heartbeat(9)) == 6)
        #expect(box.highestSent(of: heartbeat(4)) == 4)
        #expect(box.highestSent(of: heartbeat(9, view: 4)) == 9)
        box.proposals.removeFirst()
        #expect(box.highestSent(of: heartbeat(9)) == 7)
    }

    @Test func theCoreIsToldOfNoRoomWhileAProposalWaits() {
        var box = Outbox()
        #expect(box.room > 1_000)
        box.unready = 1_000
        let before = box.room
        box.unready = 0
        #expect(box.room == before + 1_000)
        box.enqueue(proposal: proposal(1))
        #expect(box.room == 0)
    }

    @Test func whatIsWithdrawnDoesNotLeaveButForWhatHasBegunTo() {
        var box = Outbox()
        for instance in [4, 5, 6] as [Instance] { box.enqueue(proposal: proposal(instance)) }
        box.proposals.isParcel = true
        box.withdrawProposals()
        #expect(instances(box.proposals) == [4])
        // It goes on, and is not begun once more.
        box.enqueue(proposal: proposal(4))
        box.enqueue(proposal: proposal(5))
        #expect(instances(box.proposals) == [4, 5])
        box.proposals.isParcel = false
        box.withdrawProposals()
        #expect(instances(box.proposals) == [])
    }

    @Test func anAnswerIsQueuedOnceAndNotForAViewThatIsOver() {
        var box = Outbox()
        func promise(_ instance: Instance, view: View) -> Message {
            Message(kind: .promise, view: view, instance: instance, bound: 0, acceptedView: 1, batch: batch)
        }
        let decided = Message(kind: .decided, view: 3, instance: 2, commit: 2, batch: batch)
        for message in [promise(1, view: 3), promise(2, view: 3), decided, promise(1, view: 3)] {
            box.enqueue(answer: message)
        }
        #expect(instances(box.answers) == [1, 2, 2])
        // The end of the newer answer counts.
        var last = decided
        last.flags = .last
        box.enqueue(answer: last)
        #expect(box.answers.messages.elements.map(\.flags) == [.none, .none, .last])
        // Unless it has begun to go out: then only its flags are news.
        box.answers.isParcel = true
        var other = promise(1, view: 3)
        other.batch.length = 9
        other.flags = .more
        box.enqueue(answer: other)
        #expect(box.answers.messages.first?.batch == batch && box.answers.messages.first?.flags == .more)
        box.answers.isParcel = false
        box.enqueue(answer: promise(1, view: 4))
        #expect(box.answers.messages.elements.map(\.view) == [3, 4])
    }

    @Test func repetitionsNeedAReason() {
        var repetitions = Repetitions(ways: 4)
        func mayLeave(_ message: Message, way: Int = 1) -> Bool { repetitions.mayLeave(message, way: way) }
        for instance in 1...2_000 as ClosedRange<Instance> { #expect(mayLeave(proposal(instance))) }
        #expect(!mayLeave(proposal(7)) && mayLeave(proposal(7), way: 2) && mayLeave(proposal(7, view: 4)))
        repetitions.beginAgain(way: 1)
        #expect(mayLeave(proposal(7)) && mayLeave(proposal(1_999)) && !mayLeave(proposal(7)))
        #expect(!mayLeave(proposal(7), way: 2))
        let decided = Message(kind: .decided, view: 3, instance: 7, commit: 9, batch: batch)
        #expect(mayLeave(decided) && !mayLeave(decided))
        repetitions.request(way: 1)
        #expect(mayLeave(decided) && !mayLeave(decided))
        #expect(mayLeave(heartbeat(7)) && mayLeave(heartbeat(7)))
    }
}
