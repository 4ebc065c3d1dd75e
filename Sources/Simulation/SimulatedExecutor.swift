import MPaxosConsensus
import MPaxosInvariants

/// A replica's state and its commits: what is executed becomes durable as a whole, some time later; then its replies
/// leave.
struct SimulatedExecutor: ~Copyable {
    private let bugs: PlantedBugs
    /// Survives a crash.
    private(set) var committed: ReplicatedState
    /// How often the state pool was started.
    var bootCount: UInt64 = 0
    /// `committed`, and what was executed since.
    private(set) var working: ReplicatedState
    private(set) var isCommitting = false
    /// Counts commits, so that one is not ended twice.
    private(set) var commitNumber: UInt64 = 0
    /// What waits for the commit: numbers of commands that this replica is to answer.
    private(set) var replies = Buffer<Answer>()

    init(sessionCount: Int, bugs: PlantedBugs) {
        self.init(state: ReplicatedState(sessionCount: sessionCount), bugs: bugs)
    }

    private init(state: ReplicatedState, bugs: PlantedBugs) {
        self.bugs = bugs
        committed = state
        working = state
    }

    /// Of a replica that is down.
    func copy() -> SimulatedExecutor {
        var other = SimulatedExecutor(state: committed, bugs: bugs)
        other.bootCount = bootCount
        return other
    }

    mutating func apply(_ command: Command, number: Int, isMine: Bool) {
        invariant(!isCommitting, "a commit ends before the next one begins")
        let reply = working.apply(command, bugs: bugs)
        if isMine { replies.append(Answer(command: number, reply: reply)) }
    }

    mutating func endInstance() { working.endInstance() }

    mutating func beginCommit() {
        invariant(!isCommitting, "one commit at a time")
        isCommitting = true
        commitNumber += 1
    }

    mutating func endCommit() {
        invariant(isCommitting, "a commit ends that began")
        committed = working
        isCommitting = false
    }

    /// The state drifts, and what is executed on it from now on is wrong, too.
    mutating func drift(register: Int) {
        committed.drift(register: register)
        working.drift(register: register)
    }

    mutating func repliesLeft() { replies.removeAll() }

    /// A commit in progress is there or is not.
    mutating func crash(random: inout SimulationRandom) {
        if isCommitting {
            if bugs.contains(.sessionsOutsideCommit) && random.chance(perMille: 300) {
                committed.takeRegisters(of: working)
            } else if random.chance(perMille: 500) {
                committed = working
            }
        }
        if bugs.contains(.recordsForgotten) { committed.forgetRecords() }
        if bugs.contains(.useOrderForgotten) { committed.forgetUses() }
        working = committed
        isCommitting = false
        replies.removeAll()
    }

    mutating func install(_ state: ReplicatedState) {
        invariant(!isCommitting && replies.isEmpty, "a state is installed in a stopped replica")
        if bugs.contains(.catchUpSkips) {
            committed.skip(to: state.executed)
        } else {
            committed = state
        }
        if bugs.contains(.recordsForgotten) { committed.forgetRecords() }
        working = committed
    }
}
