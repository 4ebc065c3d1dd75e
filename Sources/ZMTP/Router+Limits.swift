import MPaxosInvariants

extension Router {
    /// What strangers and clumsy clients may cost. `docs/limits.md` tells what a replica sets.
    package struct Limits: Sendable {
        /// Bytes of a message, heads of its frames included: beyond it the connection is dropped.
        package var largestMessage: Int
        /// Bytes that wait to be sent to one peer: beyond it, further messages for it are refused. An empty queue takes
        /// any.
        package var mostQueued: Int
        /// The same for all peers together: beyond it, messages are refused for those that do not read, but for a share
        /// each.
        package var mostQueuedTogether: Int
        /// The share: bytes that may wait for each, whatever waits for the others.
        package var share: Int
        /// Bytes of unfinished messages of all peers together: beyond it, those are dropped whose messages cost most.
        package var mostHeldTogether: Int
        /// Microseconds for the handshake.
        package var handshakeTime: UInt64
        /// Seconds for the whole of a message, from its first byte on.
        package var messageSeconds: Int
        /// Seconds of silence after which a peer is taken for dead, if it can be asked whether it lives. TCP asks the
        /// others.
        package var silenceSeconds: Int
        /// Connections at once: who comes when there are so many takes the place of one that idles, or waits until one
        /// ends.
        package var mostConnections: Int

        package init(
            largestMessage: Int, mostQueued: Int, mostQueuedTogether: Int, share: Int = 1 << 20,
            mostHeldTogether: Int = .max, handshakeTime: UInt64, messageSeconds: Int = .max,
            silenceSeconds: Int = .max, mostConnections: Int = .max
        ) {
            invariant(largestMessage > 0 && mostQueued > 0 && mostConnections > 0, "limits are positive")
            invariant(mostQueuedTogether >= 0 && share >= 0, "limits are not negative")
            invariant(mostHeldTogether >= largestMessage, "one message may always be held")
            invariant(messageSeconds > 0 && silenceSeconds > 0, "times are positive")
            self.largestMessage = largestMessage
            self.mostQueued = mostQueued
            self.mostQueuedTogether = mostQueuedTogether
            self.share = share
            self.mostHeldTogether = mostHeldTogether
            self.handshakeTime = handshakeTime
            self.messageSeconds = messageSeconds
            self.silenceSeconds = silenceSeconds
            self.mostConnections = mostConnections
        }
    }
}
