import Glibc

/// The results of a command, on standard output. What cannot be written there is an error of the command: who reads an
/// empty file must not take it for the answer.
enum Output {
    static func line(_ text: String) throws { try write(Array((text + "\n").utf8)) }

    static func write(_ bytes: [UInt8]) throws {
        try finish()
        guard writeWhole(bytes, to: STDOUT_FILENO) else { throw failure(errno) }
    }

    /// Has what was printed by other means, such as a trace, leave the process.
    static func finish() throws {
        guard fflush(nil) == 0 else { throw failure(errno) }
    }

    /// A line by which a process that goes on tells how far it is.
    static func announce(_ line: String) {
        if !writeWhole(Array((line + "\n").utf8), to: STDOUT_FILENO) {
            say("standard output: \(String(cString: strerror(errno))); goes on, after it could not say there: \(line)")
        }
    }

    private static func failure(_ code: Int32) -> Failure {
        Failure(
            .notSo,
            "standard output: \(String(cString: strerror(code))); what was asked was done, but the answer is not whole: send it elsewhere"
        )
    }

    /// For all of the process: a reader that went away, or a file that must not grow, shows as an error of a write,
    /// where it can be dealt with. What the shell has closed is taken, so that no file is opened in its place and
    /// written to as if it were the terminal; reads find nothing there, and writes fail.
    static func prepare() {
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            _ = open("/dev/null", O_RDONLY)
        }
    }
}
