import ArgumentParser
import Foundation
import Glibc
import MPaxosKeys
import MPaxosTopology

struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "Make, show and check the keys of replicas and clients.",
        discussion: "How to set up a cluster with keys, and how to change them while it runs: docs/security.md.",
        subcommands: [New.self, Show.self, Check.self])

    struct New: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "new",
            abstract: "Make a key pair, and print its public key.",
            discussion: """
                The file has both halves, and mode 0600; a missing folder is made. The public key alone goes to \
                standard output. A file that exists is not written over: exit code 3.
                """)

        @OptionGroup var file: KeyFileArgument

        @Option(help: ArgumentHelp("Whose key it is, for people. (default: the file's name)", valueName: "name"))
        var name: String?

        func run() throws {
            let path = try file.path()
            let name = try name.map(Arguments.text) ?? Self.name(of: path)
            try Self.makeFolder(of: path)
            let pair = try KeyPair.generate()
            try KeyFile.write(pair, named: name, to: path)
            sayBriefly(
                "\(path) has the secret key: it stays with whom it belongs to; the public key, on standard output, goes into the topology on all hosts (a replica's) or into the file of clients\n"
            )
            try Output.line("\(pair.publicKey)")
        }

        /// `keys/replica-0.key` is `replica-0`.
        private static func name(of path: String) -> String {
            let last = path.split(separator: "/").last.map(String.init) ?? path
            return last.hasSuffix(".key") && last.utf8.count > 4 ? String(last.dropLast(4)) : last
        }

        private static func makeFolder(of path: String) throws {
            guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return }
            let folder = String(path[..<slash])
            do {
                // One that is there already keeps its mode.
                try FileManager.default.createDirectory(
                    atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            } catch {
                let isThere = FileManager.default.fileExists(atPath: folder)
                throw Failure(
                    .refused,
                    isThere
                        ? "\(folder): is no folder: choose another one, or move that file away"
                        : "\(folder): the folder cannot be made: \(error.localizedDescription)")
            }
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show",
            abstract: "Print the public key of a file that has a secret one.",
            discussion: """
                Exit code 3, with a sentence, for a file that others than its owner can open, or whose secret key is \
                none.
                """)

        @OptionGroup var file: KeyFileArgument

        func run() throws { try Output.line("\(KeyFile.read(file.path()).publicKey)") }
    }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check",
            abstract: "Check the keys of a cluster, as far as this host has them.",
            discussion: """
                One line for each file: that of each replica whose secret key is here, the clients' file, and the \
                operator's key. Exit code 0 when all is well, 3 when something is not, 1 when the topology has no keys.
                """)

        @OptionGroup var topology: TopologyOptions

        @Option(help: ArgumentHelp("The replica whose secret key has to be on this host.", valueName: "n"))
        var id: UInt16?

        func run() throws {
            let topology = try topology.read()
            if let id, topology.index(of: id) == nil {
                throw Failure(.usage, "\(topology.file): there is no replica with id \(id)")
            }
            guard topology.hasKeys else {
                throw Failure(
                    .notSo, "\(topology.file): has no keys: its replicas have no public_key (docs/security.md)")
            }
            let check = KeyCheck(of: topology, required: id)
            for finding in check.findings { try Output.line(finding.line) }
            if check.findings.contains(where: { !$0.isGood }) { throw Failure(.refused) }
        }
    }
}

/// A file of a key pair.
struct KeyFileArgument: ParsableArguments {
    @Argument(help: ArgumentHelp("The file of the key pair.", valueName: "file"))
    var file: String

    func path() throws -> String {
        let path = try Arguments.text(of: file)
        guard !path.isEmpty else { throw Failure(.usage, "the name of the file is empty") }
        return path
    }
}
