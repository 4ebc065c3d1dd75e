import Glibc

/// A replica as a child process: this executable again, with its standard output and error coming here through pipes.
final class ChildProcess {
    let id: UInt16
    private(set) var process: pid_t
    var output: LineReader
    var errors: LineReader
    /// What `waitpid` said; nil while it runs.
    private(set) var status: Int32?
    /// The line by which it told that it is ready.
    var readyLine: String?

    /// - Parameter lifeline: the end of a pipe that becomes its standard input: the child stops when the other end
    ///   closes.
    /// - Throws: `Failure` when no process can be made.
    init(id: UInt16, arguments: [String], lifeline: Int32) throws {
        self.id = id
        let (outputRead, outputWrite) = try makePipe()
        let (errorRead, errorWrite) = try makePipe()
        defer {
            close(outputWrite)
            close(errorWrite)
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, lifeline, STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, outputWrite, STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&actions, errorWrite, STDERR_FILENO)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // None is lost before the child is ready to take them.
        var blocked = Signals.taken
        posix_spawnattr_setsigmask(&attributes, &blocked)
        var defaults = sigset_t()
        sigemptyset(&defaults)
        sigaddset(&defaults, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        // A group of its own: ctrl-C reaches the parent alone, which then stops the children one way.
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))

        var argv: [UnsafeMutablePointer<CChar>?] = (["mpaxos"] + arguments).map { strdup($0) }
        argv.append(nil)
        defer { for argument in argv { free(argument) } }
        var pid: pid_t = 0
        let code = posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv, environ)
        guard code == 0 else {
            close(outputRead)
            close(errorRead)
            throw Failure(.notSo, "replica \(id) cannot be started: \(String(cString: strerror(code)))")
        }
        process = pid
        output = LineReader(outputRead)
        errors = LineReader(errorRead)
    }

    var isRunning: Bool { status == nil }

    /// Sees whether it has ended. Never waits.
    func reap() {
        guard status == nil else { return }
        var code: Int32 = 0
        if waitpid(process, &code, WNOHANG) == process { status = code }
    }

    func send(signal: Int32) {
        if isRunning { kill(process, signal) }
    }

    /// Its exit code; nil while it runs, or when a signal killed it.
    var exitCode: Int32? {
        guard let status, status & 0x7F == 0 else { return nil }
        return (status >> 8) & 0xFF
    }

    /// How it ended, for a person.
    var ending: String {
        if let exitCode { return "ended with exit code \(exitCode)" }
        let signal = (status ?? 0) & 0x7F
        return "was ended by signal \(signal) (\(String(cString: strsignal(signal))))"
    }
}

/// The reading end of a pipe, cut into lines.
struct LineReader {
    /// -1 once the other end is closed.
    private(set) var descriptor: Int32
    private var rest: [UInt8] = []
    private static let longest = 1 << 16

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    /// Lines that have come by now, without their ends. Call when the descriptor is readable.
    mutating func read() -> [String] {
        guard descriptor >= 0 else { return [] }
        var buffer = [UInt8](repeating: 0, count: 1 << 14)
        let count = Glibc.read(descriptor, &buffer, buffer.count)
        if count < 0 && (errno == EINTR || errno == EAGAIN) { return [] }
        guard count > 0 else {
            close(descriptor)
            descriptor = -1
            defer { rest = [] }
            return rest.isEmpty ? [] : [String(decoding: rest, as: UTF8.self)]
        }
        rest += buffer[..<count]
        var lines = rest.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        let unfinished = lines.removeLast()
        rest = unfinished.count > Self.longest ? [] : Array(unfinished)
        return lines.map { String(decoding: $0, as: UTF8.self) }
    }
}

/// A pipe that no child inherits unless it is told to.
func makePipe() throws -> (read: Int32, write: Int32) {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else {
        throw Failure(.notSo, "no pipe can be made: \(String(cString: strerror(errno)))")
    }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
}
