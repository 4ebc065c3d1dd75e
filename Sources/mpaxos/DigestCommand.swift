import ArgumentParser
import MPaxosStorage

struct DigestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "digest",
        abstract: "Print the position and the digest of a state.pool.",
        discussion: """
            The digest is of the replicated state, sessions included: equal on replicas at equal positions. Exit code \
            3 when a replica is using the pool.
            """)

    @OptionGroup var pool: PoolOptions

    func run() throws {
        let digest = try PoolInspection.digest(path: Arguments.text(of: pool.path))
        try Output.line("\(digest.position) \(PoolInspection.hexadecimal(digest.value))")
    }
}
