import Testing

/// Real processes, real sockets, real kill -9. Each test is one scenario in `scenarios/`, where what it checks is
/// written; a scenario can be run by itself, say `python3 Tests/EndToEndTests/scenarios/crashes.py kills --rounds 100`.
/// A cluster waits more than it computes: these run beside those of `OutsideTests`, each by itself in its half.
@Suite("End to end", .serialized, .timeLimit(.minutes(4)))
struct EndToEndTests {
    /// What a client sees that speaks the protocol to the byte, through each of three replicas.
    @Suite("The client protocol", .serialized)
    struct ClientProtocol {
        @Test(arguments: Scenario.Threads.allCases)
        func commandsSessionsAndPositions(threads: Scenario.Threads) async throws {
            try await Scenario(script: "protocol", name: "commands").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func retriesAtOnceThroughAllReplicas(threads: Scenario.Threads) async throws {
            try await Scenario(script: "protocol", name: "retries-at-once").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func socketsAndEnvelopes(threads: Scenario.Threads) async throws {
            try await Scenario(script: "protocol", name: "sockets").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func socketsAndEnvelopesOfLibzmq(threads: Scenario.Threads) async throws {
            try await Scenario(script: "protocol", name: "libzmq-sockets").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func redirectsAndLocalQueries(threads: Scenario.Threads) async throws {
            try await Scenario(script: "protocol", name: "flags").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func everythingMalformed(threads: Scenario.Threads) async throws {
            try await Scenario(script: "rejections", name: "malformed").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func tooLarge(threads: Scenario.Threads) async throws {
            try await Scenario(script: "rejections", name: "sizes").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func keyValueOperations(threads: Scenario.Threads) async throws {
            try await Scenario(script: "keyvalue", name: "operations").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func busyBeyondWhatMayBeOutstanding(threads: Scenario.Threads) async throws {
            try await Scenario(script: "limits", name: "busy").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func answersBetweenLongQueries(threads: Scenario.Threads) async throws {
            try await Scenario(script: "limits", name: "turns").run(threads)
        }

        @Test func sessionsThatNobodyGuesses() async throws {
            try await Scenario(script: "limits", name: "guesses").run(.fused)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func evictionOfTheSessionUsedLongestAgo(threads: Scenario.Threads) async throws {
            try await Scenario(script: "limits", name: "eviction").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func fullState(threads: Scenario.Threads) async throws {
            try await Scenario(script: "limits", name: "full").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func repliesOfManyMebibytesAtOnce(threads: Scenario.Threads) async throws {
            try await Scenario(script: "limits", name: "big-replies").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func thousandsOfLateReplies(threads: Scenario.Threads) async throws {
            try await Scenario(script: "limits", name: "late-replies").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func literalREPSocket(threads: Scenario.Threads) async throws {
            try await Scenario(script: "limits", name: "literal-rep").run(threads)
        }
    }

    /// kill -9 under load: nothing acknowledged is lost, nothing is done twice.
    @Suite("Crashes", .serialized)
    struct Crashes {
        @Test(arguments: Scenario.Threads.allCases)
        func followerLeaderAndAllAtOnce(threads: Scenario.Threads) async throws {
            try await Scenario(script: "crashes", name: "kills").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func fiveReplicasKilledAgainBeforeTheyAreReady(threads: Scenario.Threads) async throws {
            try await Scenario(script: "crashes", name: "kills-in-a-row").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func restartedLeaderGoesOnInItsView(threads: Scenario.Threads) async throws {
            try await Scenario(script: "crashes", name: "leader-resumes").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func largeRepliesAreKept(threads: Scenario.Threads) async throws {
            try await Scenario(script: "crashes", name: "large-replies").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func majorityLostAndFound(threads: Scenario.Threads) async throws {
            try await Scenario(script: "crashes", name: "quorum-lost").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func catchUpAfterALongAbsence(threads: Scenario.Threads) async throws {
            try await Scenario(script: "crashes", name: "catch-up").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func logThatWraps(threads: Scenario.Threads) async throws {
            try await Scenario(script: "crashes", name: "log-wraps").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func historiesOfRegistersAreLinearizable(threads: Scenario.Threads) async throws {
            try await Scenario(script: "linearizability", name: "registers").run(threads)
        }
    }

    /// A replica that no log helps any more takes the state of another one.
    @Suite("State transfers", .serialized)
    struct StateTransfers {
        @Test(arguments: Scenario.Threads.allCases)
        func absenceBeyondTheLog(threads: Scenario.Threads) async throws {
            try await Scenario(script: "transfer", name: "catches-up").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func pauseBeyondTheLog(threads: Scenario.Threads) async throws {
            try await Scenario(script: "transfer", name: "while-it-runs").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func receiverKilledAtAnyMoment(threads: Scenario.Threads) async throws {
            try await Scenario(script: "transfer", name: "receiver-is-killed").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func aLogThatIsDamaged(threads: Scenario.Threads) async throws {
            try await Scenario(script: "transfer", name: "damaged-log").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func giverKilledInTheMiddle(threads: Scenario.Threads) async throws {
            try await Scenario(script: "transfer", name: "giver-is-killed").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func giverThatFallsSilent(threads: Scenario.Threads) async throws {
            try await Scenario(script: "transfer", name: "giver-is-silent").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func twoOfFiveAtOnce(threads: Scenario.Threads) async throws {
            try await Scenario(script: "transfer", name: "two-of-five").run(threads)
        }
    }

    /// Calls that serving a request must not make, counted exactly under callgrind. In the release build alone, which
    /// `scripts/test` names in MPAXOS_EXECUTABLE: debug code counts references for its checks.
    @Test(
        "The steady state neither allocates nor counts references",
        .enabled(if: Scenario.runsNamedExecutable, "needs the release build, which scripts/test makes and names"),
        arguments: Scenario.Threads.allCases)
    func hotPath(threads: Scenario.Threads) async throws {
        try await Scenario(script: "hotpath", name: "no-allocation").run(threads)
    }

    /// Clusters of other shapes than three replicas on TCP with the defaults.
    @Suite("Shapes", .serialized)
    struct Shapes {
        @Test(arguments: Scenario.Threads.allCases)
        func oneTwoFourAndNineReplicas(threads: Scenario.Threads) async throws {
            try await Scenario(script: "shapes", name: "numbers-of-replicas").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func idsThatAreNoIndices(threads: Scenario.Threads) async throws {
            try await Scenario(script: "shapes", name: "sparse-ids").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func endpointsOfIPC(threads: Scenario.Threads) async throws {
            try await Scenario(script: "shapes", name: "local-sockets").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func narrowPipeline(threads: Scenario.Threads) async throws {
            try await Scenario(script: "shapes", name: "narrow-pipeline").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func moreSmallBatchesThanSlots(threads: Scenario.Threads) async throws {
            try await Scenario(script: "shapes", name: "small-batches").run(threads)
        }
    }

    /// Between replicas that are far from a fast network. Skipped where this process is not root, or the kernel lacks
    /// what it takes.
    @Suite("Slow links", .serialized)
    struct SlowLinks {
        @Test(arguments: Scenario.Threads.allCases)
        func largeValues(threads: Scenario.Threads) async throws {
            try await Scenario(script: "links", name: "slow-link").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func manyClients(threads: Scenario.Threads) async throws {
            try await Scenario(script: "links", name: "slower-link").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func smallValuesBesideALargeOne(threads: Scenario.Threads) async throws {
            try await Scenario(script: "links", name: "large-beside-small").run(threads)
        }
    }

    /// What messages rest on, checked in the running node; pools on a disk; pools that are damaged.
    @Suite("Durability", .serialized)
    struct Durability {
        @Test(arguments: Scenario.Threads.allCases)
        func nothingUnflushedLiesBehindAMessage(threads: Scenario.Threads) async throws {
            try await Scenario(script: "durability", name: "checked-flushes").run(threads)
        }

        @Test func forgottenFlushesAndFencesAreFound() async throws {
            try await Scenario(script: "durability", name: "forgotten-flushes").run()
        }

        @Test func brokenInvariantsSayWhich() async throws {
            try await Scenario(script: "durability", name: "broken-invariant").run()
        }

        @Test func poolsOnADisk() async throws {
            try await Scenario(script: "durability", name: "on-a-disk").run()
        }

        @Test func poolsDamagedAnywhere() async throws {
            try await Scenario(script: "durability", name: "damaged-pools").run()
        }
    }
}
