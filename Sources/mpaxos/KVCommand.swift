import ArgumentParser
import MPaxosClient
import MPaxosKeyValueFormat
import MPaxosKeys
import MPaxosTopology

/// One operation of the key-value service from the shell.
struct KVCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kv",
        abstract: "One operation of the key-value service.",
        discussion: """
            Exit code 1 when the key is absent, the swap did not happen or the operation was refused. Keys and values \
            are the bytes of the arguments; put -- before those that begin with a dash.
            """,
        subcommands: [
            KVPut.self, KVGet.self, KVDelete.self, KVCompareAndSwap.self, KVAppend.self, KVAdd.self, KVScan.self,
        ])
}

/// What all operations take.
struct KVOptions: ParsableArguments {
    @OptionGroup var topology: TopologyOptions
    @OptionGroup var key: KeyOptions
    @OptionGroup var timeout: TimeoutOptions

    /// Has the cluster execute `command`, once, whatever has to be retried.
    func execute(_ command: KeyValueCommand) throws -> KeyValueReply {
        let topology = try topology.read()
        let keys = try key.read(for: topology)
        do throws(ClientError) {
            let client = try ClusterClient(
                endpoints: topology.replicas.map(\.client.description),
                options: ClientOptions(timeout: .seconds(timeout.timeout), keys: keys))
            let reply = try client.perform(command)
            if case .refused(let reason) = reply { throw .refused(reason) }
            return reply
        } catch {
            throw Failure(Self.code(for: error), error.description + Self.hint(at: keys, error))
        }
    }

    /// Replicas with keys are silent to clients without.
    private static func hint(at keys: ClusterKeys?, _ error: ClientError) -> String {
        guard keys == nil, case .unanswered(_, uncertain: false) = error else { return "" }
        return " (where replicas have keys, the topology has to name them)"
    }

    private static func code(for error: ClientError) -> Failure.Code {
        switch error {
        case .malformed, .tooLarge, .setUp: .usage
        case .denied: .refused
        case .refused, .full, .replyTooLarge: .notSo
        case .unanswered, .sessionExpired, .stale, .unintelligible, .shutDown, .cancelled: .noAnswer
        }
    }
}

struct ValueOutput: ParsableArguments {
    @Flag(help: "Print the value as it is, without a newline behind it.")
    var raw = false

    func show(_ value: [UInt8]) throws { try Output.write(raw ? value : value + [UInt8(ascii: "\n")]) }
}

struct KVPut: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "put", abstract: "Set a key to a value.")

    @Argument var key: ByteString
    @Argument var value: ByteString
    @OptionGroup var options: KVOptions

    func run() throws {
        _ = try options.execute(.put(key: key.bytes, value: value.bytes))
    }
}

struct KVGet: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "get", abstract: "Print the value of a key.")

    @Argument var key: ByteString
    @OptionGroup var output: ValueOutput
    @OptionGroup var options: KVOptions

    func run() throws {
        guard case .value(let value) = try options.execute(.get(key: key.bytes)) else { throw absent(key) }
        try output.show(value)
    }
}

struct KVDelete: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "delete", abstract: "Remove a key.")

    @Argument var key: ByteString
    @OptionGroup var options: KVOptions

    func run() throws {
        guard case .value = try options.execute(.delete(key: key.bytes)) else { throw absent(key) }
    }
}

struct KVCompareAndSwap: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cas", abstract: "Set a key to a new value, if it has the expected one.",
        usage: """
            mpaxos kv cas KEY EXPECTED NEW --topology <file>
            mpaxos kv cas KEY --absent NEW --topology <file>
            """)

    @Argument var key: ByteString
    @Argument(help: "The expected value, unless --absent is given, and the new one.")
    var values: [ByteString]
    @Flag(help: "Expect the key to be absent.")
    var absent = false
    @OptionGroup var options: KVOptions

    func validate() throws {
        guard values.count == (absent ? 1 : 2) else {
            throw ValidationError(
                absent
                    ? "with --absent there is one value, the new one"
                    : "there are two values, the expected and the new one")
        }
    }

    func run() throws {
        let expected = absent ? nil : values[0].bytes
        let new = values[values.count - 1].bytes
        let reply = try options.execute(.compareAndSwap(key: key.bytes, expected: expected, new: new))
        guard case .swapped = reply else {
            guard case .notSwapped(let found?) = reply else {
                throw Failure(.notSo, "not swapped: \(key.text) is absent")
            }
            throw Failure(.notSo, "not swapped: \(key.text) is \(String(decoding: found, as: UTF8.self))")
        }
    }
}

struct KVAppend: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "append", abstract: "Append text to the value of a key, and print its length in bytes.")

    @Argument var key: ByteString
    @Argument var text: ByteString
    @OptionGroup var options: KVOptions

    func run() throws {
        guard case .length(let length) = try options.execute(.append(key: key.bytes, bytes: text.bytes))
        else { throw Failure(.notSo, "\(key.text) was not appended to") }
        try Output.line("\(length)")
    }
}

struct KVAdd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Add to the number that a key holds, and print the sum.",
        discussion: "The number is kept as 8 bytes; an absent key counts as 0.")

    @Argument var key: ByteString
    // A negative number would pass for an option.
    @Argument(parsing: .allUnrecognized, help: "The number to add.")
    var number: [String]
    @OptionGroup var options: KVOptions

    func validate() throws {
        guard number.count == 1, Int64(number[0]) != nil else {
            throw ValidationError("expected one 64-bit number to add, got \(number.joined(separator: " "))")
        }
    }

    func run() throws {
        guard case .sum(let sum) = try options.execute(.add(key: key.bytes, delta: Int64(number[0]) ?? 0)) else {
            throw Failure(.notSo, "\(key.text) was not added to")
        }
        try Output.line("\(sum)")
    }
}

struct KVScan: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scan", abstract: "Print the entries whose keys begin with a prefix: key, tab, value.",
        discussion: "In no particular order. All entries, when no prefix is given; as many as fit into one reply.")

    @Argument var prefix = ByteString([])
    @Option(help: ArgumentHelp("Most entries; 0: as many as fit.", valueName: "n"))
    var limit: UInt32 = 0
    @OptionGroup var options: KVOptions

    func run() throws {
        guard
            case .entries(let entries, let more) = try options.execute(.scan(prefix: prefix.bytes, limit: limit))
        else { throw Failure(.notSo, "the scan was refused") }
        let tab = UInt8(ascii: "\t")
        let newline = UInt8(ascii: "\n")
        var lines: [UInt8] = []
        for entry in entries {
            lines += entry.key
            lines.append(tab)
            lines += entry.value
            lines.append(newline)
        }
        try Output.write(lines)
        if more { say("there are more entries: name a longer prefix") }
    }
}

private func absent(_ key: ByteString) -> Failure { Failure(.notSo, "\(key.text) is absent") }
