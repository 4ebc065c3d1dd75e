import Testing

/// What comes from outside of the model: an operator's slip, damage, strangers, foreign pools, whoever watches. The
/// other half of the end-to-end tests, beside `EndToEndTests`.
@Suite("From outside", .serialized, .timeLimit(.minutes(4)))
struct OutsideTests {
    /// Pools that must not be used, replicas that must not join.
    @Suite("Refusals", .serialized)
    struct Refusals {
        @Test func poolsMissingCutOrDamaged() async throws {
            try await Scenario(script: "refusals", name: "pools").run()
        }

        @Test func poolsOfOthersAndPoolsInUse() async throws {
            try await Scenario(script: "refusals", name: "strangers").run()
        }

        @Test func aBitInWhatTheOpenOfAStateTrusts() async throws {
            try await Scenario(script: "refusals", name: "damaged-state").run()
        }

        @Test func aBitInAVoteThatWasFenced() async throws {
            try await Scenario(script: "refusals", name: "damaged-votes").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func bitsFlippedAnywhere(threads: Scenario.Threads) async throws {
            try await Scenario(script: "flips", name: "some-flips").run(threads)
        }

        @Test func formatsCutShortAndRacing() async throws {
            try await Scenario(script: "refusals", name: "formats").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func replicaThatLostItsPools(threads: Scenario.Threads) async throws {
            try await Scenario(script: "refusals", name: "lost-pools").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func replicaOfAnotherCluster(threads: Scenario.Threads) async throws {
            try await Scenario(script: "refusals", name: "foreign-cluster").run(threads)
        }
    }

    /// What pools were formatted for.
    @Suite("Charters", .serialized)
    struct Charters {
        @Test func sizesEditedUnderPools() async throws {
            try await Scenario(script: "charters", name: "edited-sizes").run()
        }

        @Test func membersEditedUnderPools() async throws {
            try await Scenario(script: "charters", name: "edited-members").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func peersThatDiffer(threads: Scenario.Threads) async throws {
            try await Scenario(script: "charters", name: "peers-that-differ").run(threads)
        }

        @Test func poolsThatAreDumped() async throws {
            try await Scenario(script: "charters", name: "dumped").run()
        }
    }

    /// Pools of an earlier time, and copies of them.
    @Suite("Lives", .serialized)
    struct Lives {
        @Test(arguments: Scenario.Threads.allCases)
        func bothPoolsOfAnEarlierTime(threads: Scenario.Threads) async throws {
            try await Scenario(script: "lives", name: "rolled-back").run(threads)
        }

        @Test func bothPoolsOfTheReplicaThatConnectsToNobody() async throws {
            try await Scenario(script: "lives", name: "rolled-back-first").run()
        }

        @Test func oldPoolsStartedAgainAndAgain() async throws {
            try await Scenario(script: "lives", name: "started-again-and-again").run()
        }

        @Test func onePoolOfAnEarlierTime() async throws {
            try await Scenario(script: "lives", name: "one-pool-of-two").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func twoProcessesOnCopies(threads: Scenario.Threads) async throws {
            try await Scenario(script: "lives", name: "copied").run(threads)
        }
    }

    /// The first meetings of a cluster's replicas.
    @Suite("Founding", .serialized)
    struct Founding {
        @Test(arguments: Scenario.Threads.allCases)
        func aMajorityAloneServesNobody(threads: Scenario.Threads) async throws {
            try await Scenario(script: "founding", name: "waits-for-all").run(threads)
        }

        @Test func poolsFormattedAnewBeforeAndAfter() async throws {
            try await Scenario(script: "founding", name: "first-meetings").run()
        }

        @Test func oneThatLosesItsPoolsMeanwhile() async throws {
            try await Scenario(script: "founding", name: "lost-while-linked").run()
        }

        @Test func oneThatWasFormattedOtherwise() async throws {
            try await Scenario(script: "founding", name: "formatted-otherwise").run()
        }

        @Test func killsMeanwhile() async throws {
            try await Scenario(script: "founding", name: "killed-meanwhile").run()
        }
    }

    /// What strangers and clumsy clients may cost at the ports.
    @Suite("Ports", .serialized)
    struct Ports {
        @Test func messagesThatAreNeverFinished() async throws {
            try await Scenario(script: "ports", name: "unfinished-messages").run()
        }

        @Test func commandsOfMebibytes() async throws {
            try await Scenario(script: "ports", name: "long-commands").run()
        }

        @Test func moreIdleConnectionsThanPlaces() async throws {
            try await Scenario(script: "ports", name: "idle-crowd").run()
        }

        @Test func aShareOfTheRoomForEachConnection() async throws {
            try await Scenario(script: "ports", name: "shares").run()
        }

        @Test func otherStacksOfZeroMQ() async throws {
            try await Scenario(script: "ports", name: "foreign-stacks").run()
        }

        @Test func pathsOfLiveReplicas() async throws {
            try await Scenario(script: "ports", name: "paths").run()
        }

        @Test func descriptorsThatNobodyInherits() async throws {
            try await Scenario(script: "ports", name: "descriptors-stay").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func forgedFrames(threads: Scenario.Threads) async throws {
            try await Scenario(script: "ports", name: "fuzz").run(threads)
        }
    }

    /// Unknown and hostile input.
    @Suite("Garbage", .serialized)
    struct Garbage {
        @Test(arguments: Scenario.Threads.allCases)
        func clientPort(threads: Scenario.Threads) async throws {
            try await Scenario(script: "garbage", name: "client-port").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func peerPort(threads: Scenario.Threads) async throws {
            try await Scenario(script: "garbage", name: "peer-port").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func impostors(threads: Scenario.Threads) async throws {
            try await Scenario(script: "garbage", name: "impostors").run(threads)
        }

        @Test(arguments: Scenario.Threads.allCases)
        func clientsThatDoNotRead(threads: Scenario.Threads) async throws {
            try await Scenario(script: "garbage", name: "deaf-clients").run(threads)
        }
    }

    /// Who knows all that a replica says, and is none.
    @Suite("Strangers", .serialized)
    struct Strangers {
        @Test(arguments: ["replayed", "first-to-come", "endless-parts", "crowd", "wrong-socket", "claimed-names"])
        func strangers(name: String) async throws {
            try await Scenario(script: "strangers", name: name).run()
        }
    }

    /// What looks at a replica from outside, and what it says.
    @Suite("Observing", .serialized)
    struct Observing {
        @Test func httpWithinItsBounds() async throws {
            try await Scenario(script: "observing", name: "http-bounds").run()
        }

        @Test func httpPortInUse() async throws {
            try await Scenario(script: "observing", name: "http-port-in-use").run()
        }

        @Test func httpUnderFuzzAndLoad() async throws {
            try await Scenario(script: "observing", name: "http-fuzz").run()
        }

        @Test func certificateOfHTTP() async throws {
            try await Scenario(script: "https", name: "https").run()
        }

        @Test func tokenOfHTTP() async throws {
            try await Scenario(script: "https", name: "http-token").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func logsThatNobodyReads(threads: Scenario.Threads) async throws {
            try await Scenario(script: "observing", name: "stalled-log").run(threads)
        }

        @Test func logOfAClusterThatNobodyReads() async throws {
            try await Scenario(script: "observing", name: "stalled-cluster-log").run()
        }

        @Test func outputThatIsFullBrokenOrClosed() async throws {
            try await Scenario(script: "observing", name: "lost-output").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func healthOfWhoIsCutOff(threads: Scenario.Threads) async throws {
            try await Scenario(script: "observing", name: "cut-off").run(threads)
        }

        @Test func signalsAtAnyMoment() async throws {
            try await Scenario(script: "observing", name: "signals").run()
        }
    }

    /// What operators and hosts do to a replica.
    @Suite("Operators", .serialized)
    struct Operators {
        @Test(arguments: [
            "bytes-of-keys", "outputs", "interrupted-format", "failed-format", "full-file-system", "little-memory",
            "memory-of-dump", "one-process",
        ])
        func meet(name: String) async throws {
            try await Scenario(script: "operators", name: name).run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func changeTheSizeOfTheLog(threads: Scenario.Threads) async throws {
            try await Scenario(script: "operators", name: "log-size").run(threads)
        }
    }

    /// The executable as a person meets it.
    @Suite("The command line", .serialized)
    struct CommandLineInterface {
        @Test func keyValue() async throws {
            try await Scenario(script: "commandline", name: "key-value").run()
        }

        @Test func status() async throws {
            try await Scenario(script: "commandline", name: "status").run()
        }

        @Test func statesThatDiffer() async throws {
            try await Scenario(script: "commandline", name: "states-that-differ").run()
        }

        @Test func damagedAtRest() async throws {
            try await Scenario(script: "commandline", name: "damaged-at-rest").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func damagedAtWork(threads: Scenario.Threads) async throws {
            try await Scenario(script: "commandline", name: "damaged-at-work").run(threads)
        }

        @Test func dumpAndDigest() async throws {
            try await Scenario(script: "commandline", name: "inspection").run()
        }

        @Test func benchAndSimulate() async throws {
            try await Scenario(script: "commandline", name: "bench-and-simulate").run()
        }

        @Test func benchInFull() async throws {
            try await Scenario(script: "commandline", name: "bench-in-full").run()
        }

        @Test func errorsOfUsageAndTopology() async throws {
            try await Scenario(script: "commandline", name: "usage").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func formatRunSignalsAndHTTP(threads: Scenario.Threads) async throws {
            try await Scenario(script: "commandline", name: "lifecycle").run(threads)
        }

        @Test func clusterOnThisHost() async throws {
            try await Scenario(script: "commandline", name: "cluster-command").run()
        }
    }
}
