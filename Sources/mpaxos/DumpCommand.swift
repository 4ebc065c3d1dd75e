import ArgumentParser
import Foundation
import MPaxosPersistentMemory
import MPaxosStorage

struct DumpCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dump",
        abstract: "Show what a pool holds.",
        discussion: "Works on a copy in memory: the pool is not written to, and a replica may be using it.")

    @OptionGroup var pool: PoolOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    @Flag(help: "Check every checksum and walk every object. Exit code 1 when something is damaged.")
    var verify = false

    func run() throws {
        let path = try Arguments.text(of: pool.path)
        let report: PoolReport
        do throws(PoolError) {
            report = try PoolInspection.report(path: path, verify: verify)
        } catch {
            // So damaged that nothing can be shown: still the answer to the question that --verify asks.
            guard verify, error.kind == .damaged else { throw error }
            throw Failure(.notSo, error.description)
        }
        try Output.line(json ? try Self.encode(report) : report.description)
        if !report.damage.isEmpty { throw Failure(.notSo) }
    }

    private static func encode(_ report: PoolReport) throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(report), as: UTF8.self)
    }
}

/// A pool file.
struct PoolOptions: ParsableArguments {
    @Option(name: .customLong("pool"), help: ArgumentHelp("The pool file.", valueName: "path"))
    var path: String
}
