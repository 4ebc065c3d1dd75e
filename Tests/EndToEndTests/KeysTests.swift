import Testing

extension OutsideTests {
    /// Clusters in which replicas and clients are known by keys.
    @Suite("Keys", .serialized)
    struct Keys {
        @Test func keysCommand() async throws {
            try await Scenario(script: "keys", name: "keys-command").run()
        }

        @Test func keysCheck() async throws {
            try await Scenario(script: "keys", name: "keys-check").run()
        }

        @Test func clientsOfOtherLibraries() async throws {
            try await Scenario(script: "security", name: "interop").run()
        }

        @Test func clientsInJava() async throws {
            try await Scenario(script: "security", name: "interop-java").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func whatEachRoleMayDo(threads: Scenario.Threads) async throws {
            try await Scenario(script: "security", name: "roles").run(threads)
        }

        @Test func keysAreWithdrawnAndAdded() async throws {
            try await Scenario(script: "security", name: "withdrawn").run()
        }

        @Test func aKeyIsWithdrawnDuringAStart() async throws {
            try await Scenario(script: "security", name: "withdrawn-at-the-start").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func keysOfReplicasAreRotated(threads: Scenario.Threads) async throws {
            try await Scenario(script: "security", name: "rotated").run(threads)
        }

        @Test func replicasAloneHaveKeys() async throws {
            try await Scenario(script: "security", name: "peers-alone").run()
        }

        @Test func topologiesThatDiffer() async throws {
            try await Scenario(script: "security", name: "mixed").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func forgedFramesWithoutAKey(threads: Scenario.Threads) async throws {
            try await Scenario(script: "keyless", name: "fuzz").run(threads)
        }

        @Test func aStateIsTakenWithKeys() async throws {
            try await Scenario(script: "transfer", name: "with-keys").run()
        }

        @Test func aCrowdWithoutKeys() async throws {
            try await Scenario(script: "keyless", name: "crowd").run()
        }

        @Test func keysThatAreGoodForSomethingElse() async throws {
            try await Scenario(script: "keyless", name: "wrong-keys").run()
        }

        @Test(arguments: Scenario.Threads.allCases)
        func whoHasAKeyAndLies(threads: Scenario.Threads) async throws {
            try await Scenario(script: "keyless", name: "liars").run(threads)
        }
    }
}
