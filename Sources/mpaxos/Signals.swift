import Foundation
import Glibc

/// Signals that ask a process to end, or seem to, taken by a thread of their own: a handler could do next to nothing, a
/// thread may do anything.
enum Signals {
    /// What is asked of a process.
    enum Request { case stop, hangUp }

    /// SIGTERM, SIGINT, and SIGHUP unless it is ignored.
    static let taken: sigset_t = {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGTERM, SIGINT] { sigaddset(&set, number) }
        // Who started the process may have had it ignore the end of the terminal, as nohup does.
        var hangUp = sigaction()
        sigaction(SIGHUP, nil, &hangUp)
        if unsafeBitCast(hangUp.__sigaction_handler.sa_handler, to: Int.self) != 1 { sigaddset(&set, SIGHUP) }
        return set
    }()

    /// Keeps the signals pending until `onRequest`. To be called first thing in a process, so that none is met by the
    /// system's default, and before any other thread is made, since threads inherit what is blocked.
    static func block() {
        var set = taken
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// - Parameter action: runs on a thread of its own whenever a signal has come, and must not block.
    static func onRequest(_ action: @escaping @Sendable (Request) -> Void) {
        Thread.detachNewThread {
            var set = taken
            var number: Int32 = 0
            while true {
                if sigwait(&set, &number) == 0 { action(number == SIGHUP ? .hangUp : .stop) }
            }
        }
    }

    /// The same as if SIGTERM had come, once standard input ends: how the replicas of `mpaxos cluster` notice that
    /// their parent is gone, even when it was killed.
    static func stopWhenInputEnds() {
        Thread.detachNewThread {
            var byte: UInt8 = 0
            while true {
                let count = read(STDIN_FILENO, &byte, 1)
                if count < 0 && errno == EINTR { continue }
                if count <= 0 { break }
            }
            kill(getpid(), SIGTERM)
        }
    }
}
