import Glibc
import MPaxosReplica
import MPaxosTopology
import Synchronization

/// Starts the replicas of a topology, tells when they serve, forwards what they log, and stops them all in the end.
final class ClusterSupervisor: Sendable {
    private let topology: Topology
    private let logLevel: String
    /// Written by whoever wants the cluster to stop; read among the children's pipes.
    private let stopPipe: (read: Int32, write: Int32)
    /// Its write end is held here alone and closes with this process, however that ends: then the children stop.
    private let lifeline: (read: Int32, write: Int32)
    /// On its way to standard error, whose reader may be slow: that holds up neither the children nor a stop.
    private let lines = LineQueue<[UInt8]>(
        write: { writeWhole($0, to: STDERR_FILENO) },
        tellOfDropped: {
            let text = "mpaxos: dropped \($0) lines, since the reader of standard error was too slow\n"
            writeWhole(Array(text.utf8), to: STDERR_FILENO)
        })

    /// A cluster with a majority ready is not kept waiting longer than this for the rest, in milliseconds.
    private static let patience: Int64 = 3_000
    /// Milliseconds that the replicas have to stop by themselves before they are killed.
    private static let stopPatience: Int64 = 20_000

    init(topology: Topology, logLevel: String) throws {
        self.topology = topology
        self.logLevel = logLevel
        stopPipe = try makePipe()
        lifeline = try makePipe()
    }

    /// Any thread.
    func requestStop() { writeWhole([1], to: stopPipe.write) }

    /// Runs until it is told to stop, or no replica is left.
    /// - Throws: `Failure` when the cluster could not begin to serve, or ended by itself.
    func run() throws {
        defer { lines.flush(milliseconds: 1000) }
        var children: [ChildProcess] = []
        do {
            for member in topology.replicas {
                children.append(
                    try ChildProcess(id: member.id, arguments: arguments(for: member), lifeline: lifeline.read))
            }
        } catch {
            stop(children)
            throw error
        }
        var serves = false
        var majoritySince: Int64?
        while true {
            if wait(for: children, milliseconds: serves ? -1 : 100) {
                stop(children)
                return
            }
            let running = children.count(where: \.isRunning)
            if !serves {
                let ready = children.filter { $0.isRunning && $0.readyLine != nil }
                if running < quorum {
                    stop(children)
                    throw failure(
                        of: children, "too few replicas came up for the cluster to serve; what each said is above")
                }
                if ready.count >= quorum {
                    let now = Self.milliseconds()
                    let since = majoritySince ?? now
                    majoritySince = since
                    if ready.count == running || now - since >= Self.patience {
                        announce(ready)
                        serves = true
                    }
                }
            } else if running == 0 {
                throw failure(of: children, "no replica is left; what each said is above")
            }
        }
    }

    private var quorum: Int { topology.replicas.count / 2 + 1 }

    private func arguments(for member: Topology.Member) -> [String] {
        [
            "run", "--topology", topology.file, "--id", "\(member.id)", "--log-level", logLevel,
            "--stop-when-input-ends",
        ]
    }

    /// The one line on standard output.
    private func announce(_ ready: [ChildProcess]) {
        let endpoints = topology.replicas.map(\.client.description).joined(separator: " ")
        let leader = ready.compactMap { $0.readyLine?.split(separator: " ").last }.last ?? "unknown"
        let line =
            "cluster \(topology.name) serves: \(ready.count) of \(topology.replicas.count) replicas ready, "
            + "leader \(leader), clients at \(endpoints)"
        printAside(line)
    }

    /// Waits for output of the children, and deals with it.
    /// - Returns: whether somebody asked for the cluster to stop.
    private func wait(for children: [ChildProcess], milliseconds: Int32) -> Bool {
        var polled = [pollfd(fd: stopPipe.read, events: Int16(POLLIN), revents: 0)]
        for child in children {
            // A negative descriptor is passed over.
            polled.append(pollfd(fd: child.output.descriptor, events: Int16(POLLIN), revents: 0))
            polled.append(pollfd(fd: child.errors.descriptor, events: Int16(POLLIN), revents: 0))
        }
        // A child whose pipes are closed and that has not ended yet is looked at again soon.
        let isEnding = children.contains { $0.isRunning && $0.output.descriptor < 0 && $0.errors.descriptor < 0 }
        _ = poll(&polled, nfds_t(polled.count), isEnding ? 10 : milliseconds)
        for (index, child) in children.enumerated() {
            if polled[1 + 2 * index].revents != 0 { takeOutput(of: child) }
            if polled[2 + 2 * index].revents != 0 { takeErrors(of: child) }
            noticeEnd(of: child)
        }
        guard polled[0].revents != 0 else { return false }
        var byte: UInt8 = 0
        return read(stopPipe.read, &byte, 1) == 1
    }

    private func takeOutput(of child: ChildProcess) {
        for line in child.output.read() {
            if child.readyLine == nil, line.hasPrefix("replica \(child.id) ready") { child.readyLine = line }
            forward(line, of: child)
        }
    }

    private func takeErrors(of child: ChildProcess) {
        for line in child.errors.read() { forward(line, of: child) }
    }

    private func forward(_ line: String, of child: ChildProcess) {
        write("[\(child.id)] \(line)")
    }

    private func tell(_ message: String) { write("mpaxos: \(message)") }

    private func write(_ line: String) {
        let bytes = Array("\(line)\n".utf8)
        lines.add(bytes, bytes: bytes.count)
    }

    private func noticeEnd(of child: ChildProcess) {
        guard child.isRunning else { return }
        child.reap()
        guard !child.isRunning else { return }
        // What it said last is still in the pipes.
        while child.output.descriptor >= 0 { takeOutput(of: child) }
        while child.errors.descriptor >= 0 { takeErrors(of: child) }
        tell("replica \(child.id) \(child.ending)")
    }

    private func stop(_ children: [ChildProcess]) {
        for child in children { child.send(signal: SIGTERM) }
        let deadline = Self.milliseconds() + Self.stopPatience
        while children.contains(where: \.isRunning), Self.milliseconds() < deadline {
            _ = wait(for: children, milliseconds: 100)
        }
        for child in children where child.isRunning {
            tell("replica \(child.id) does not stop: it is killed")
            child.send(signal: SIGKILL)
        }
        while children.contains(where: \.isRunning) { _ = wait(for: children, milliseconds: 100) }
    }

    /// With the exit code of the first replica that was refused or misconfigured, else that of a cluster that does not
    /// answer.
    private func failure(of children: [ChildProcess], _ message: String) -> Failure {
        let codes = children.compactMap { $0.exitCode.flatMap(Failure.Code.init(rawValue:)) }
        return Failure(codes.first { $0 == .refused || $0 == .usage } ?? .noAnswer, message)
    }

    private static func milliseconds() -> Int64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000
    }
}
