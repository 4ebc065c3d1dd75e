import ArgumentParser
import Foundation
import Logging
import MPaxosInvariants
import MPaxosReplica
import MPaxosStateMachines
import MPaxosTopology
import Synchronization

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a replica in the foreground.",
        discussion: """
            Prints one line, "replica N ready: view V, leader L", once it knows a leader and has caught up. What goes \
            wrong is one line on standard error, which says what happened, to which file or endpoint, and what to do.

            Exit codes:
              0    stopped by SIGTERM or SIGINT; all that was acknowledged is durable
              1    asked to stop, it could not within 10 s: a disk does not answer
              2    the topology has a fault, or an endpoint cannot be bound:
                   mend the file, or free the port, and start again
              3    refused for safety: a pool is missing, damaged, in use, of
                   another replica, cluster or version, or formatted for other
                   members, another max_request, sessions or state_size than the
                   topology has, or for another service. Do what the line says;
                   never format a replica that ran before: the others refuse it
              134  (SIGABRT, or another signal) it found itself broken, and said
                   why: start it again; if it stops for the same, keep its pools
                   and report the line

            Each refusal and what to do about it: docs/operations.md, "Exit codes"; by symptom: docs/troubleshooting.md.
            """)

    @OptionGroup var replica: ReplicaOptions
    @OptionGroup var log: LogOptions

    @Option(
        help: ArgumentHelp(
            """
            Refuse the command at this position in place of executing it: for one that stops whoever executes it. Up \
            to 8 times, and on all replicas until all have passed it.
            """, valueName: "position"))
    var skipRecord: [UInt64] = []

    @Flag(help: .hidden)
    var stopWhenInputEnds = false

    func run() throws {
        let stop = StopRequest()
        let name = "replica \(replica.id)"
        let logger = log.makeLogger(name)
        let hangUp = HangUp(logger)
        Signals.onRequest { request in
            switch request {
            case .stop: stop.make(of: name)
            case .hangUp: hangUp.take()
            }
        }
        if stopWhenInputEnds { Signals.stopWhenInputEnds() }
        let (topology, member) = try replica.read()
        tellOfFaults()
        let node = try ReplicaNode<KeyValueService>(
            topology: topology, id: member.id, logger: logger, skipping: skipRecord)
        stop.answer { node.stop() }
        let reload: @Sendable () throws -> Void = { try node.reloadKeys() }
        hangUp.answer(node.hasKeysToReload ? reload : nil)
        try node.run { view, leader in printAside("\(name) ready: view \(view), leader \(leader)") }
    }
}
