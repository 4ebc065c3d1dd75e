import MPaxosConsensus
import MPaxosFlow

/// What a replica has to send to one peer and has not handed to the link yet, as the node keeps it: small messages
/// first, then proposals in their order and answers in theirs, each as far as the window allows; large ones in pieces.
struct Outbox: ~Copyable {
    /// Messages that carry bytes, and how much of the first has gone out in pieces.
    struct Lane: ~Copyable {
        var messages = Queue<Message>()
        var sent = 0
        /// The first goes out in pieces.
        var isParcel = false

        mutating func removeAll() {
            messages.removeAll()
            sent = 0
            isParcel = false
        }

        mutating func removeFirst() {
            messages.removeFirst()
            sent = 0
            isParcel = false
        }
    }

    var window = SendWindow()
    /// What passes everything else: it waits only for a way that pushes back.
    var urgent = Queue<Frame>()
    var proposals = Lane()
    var answers = Lane()
    /// Of pieces, the answer's are next.
    var isAnswersTurn = false
    /// When it is looked at again though nothing happens.
    var wakeAt: Microseconds = .max
    /// Bytes of proposals that wait for their records, and so are not here yet.
    var unready = 0
    /// The core was told that there is no room.
    var isBarred = false
    /// Repetitions that the core counted so far, and whether there is a reason for another.
    var repetitions: UInt64 = 0
    var mayRepeat = false
    /// How often the core had begun to lead.
    var leaderships: UInt64 = 0

    /// The message that is next in a lane, and whether its bytes have begun to go out in pieces.
    func next(isAnswer: Bool) -> (message: Message, isParcel: Bool)? {
        if isAnswer { return answers.messages.first.map { ($0, answers.isParcel) } }
        return proposals.messages.first.map { ($0, proposals.isParcel) }
    }

    /// What the core may send now.
    var room: Int { mutating get { proposals.messages.isEmpty ? max(0, window.room - unready) : 0 } }

    /// The highest proposal that went out and has none waiting below it: a heartbeat that passes those that wait speaks
    /// of no more.
    func highestSent(of heartbeat: Message) -> Instance {
        var highest = heartbeat.instance
        for message in proposals.messages.elements
        where message.kind == .accept && message.view == heartbeat.view && message.instance <= highest {
            highest = message.instance - 1
        }
        return highest
    }

    /// Another proposal, unless it is the one that is going out in pieces.
    mutating func enqueue(proposal: Message) {
        if proposals.isParcel, let first = proposals.messages.first, first.isSame(as: proposal) { return }
        proposals.messages.append(proposal)
    }

    /// A value that was asked for, in an election or to catch up. Asked for again while it waits, it leaves once;
    /// promises of views that are over do not leave at all.
    mutating func enqueue(answer: Message) {
        var kept = answers.isParcel ? 1 : 0
        var isThere = kept == 1 && answers.messages.elements[0].isSame(as: answer)
        // What has begun to go out keeps its bytes: by now another value may be known there.
        if isThere { answers.messages.elements[0].flags.formUnion(answer.flags) }
        for place in kept..<answers.messages.count {
            let message = answers.messages.elements[place]
            if message.kind == .promise && answer.kind == .promise && message.view < answer.view { continue }
            let isSame = message.isSame(as: answer)
            isThere = isThere || isSame
            answers.messages.elements[kept] = isSame ? answer : message
            kept += 1
        }
        answers.messages.truncate(to: kept)
        if !isThere { answers.messages.append(answer) }
    }

    /// Proposals that have not begun to go out are not wanted any more.
    mutating func withdrawProposals() {
        var kept = proposals.isParcel ? 1 : 0
        for place in kept..<proposals.messages.count where proposals.messages.elements[place].kind != .accept {
            proposals.messages.elements[kept] = proposals.messages.elements[place]
            kept += 1
        }
        proposals.messages.truncate(to: kept)
    }

    /// The link is up, or lost: nothing waits for the old one.
    mutating func reset(now: Microseconds) {
        urgent.removeAll()
        proposals.removeAll()
        answers.removeAll()
        window.reset(now: now)
    }
}

extension Message {
    /// Whether both propose the same.
    func isSame(as other: Message) -> Bool {
        kind == other.kind && view == other.view && instance == other.instance
    }
}
