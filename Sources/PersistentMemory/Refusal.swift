/// Why a command cannot be applied. The runtime undoes all that the command wrote and answers FULL.
public enum Refusal: Error, Hashable, Sendable {
    /// The store has no room for it.
    case full
    /// It would write more than one commit can hold.
    case tooLarge
    /// Its reply is larger than a reply may be. Thrown by the runtime, not by a state machine.
    case replyTooLarge
    /// It is no command that may be executed: its machine's `validate` rejects it, or it is larger than `max_request`.
    /// Thrown by the runtime, not by a state machine, where a replica ordered what it should have rejected.
    case malformed
    /// An operator has named its position, since the machine cannot execute it. Thrown by the runtime.
    case skipped
}
