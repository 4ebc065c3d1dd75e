import Foundation
import Glibc

/// SIGTERM and SIGINT, taken by a thread of their own: a handler could do next to nothing, a thread may do anything.
enum Signals {
    private static func terminationSet() -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGTERM)
        sigaddset(&set, SIGINT)
        return set
    }

    /// Keeps the signals pending until `onTermination`. To be called before any other thread is made, since threads
    /// inherit what is blocked.
    static func blockTermination() {
        var set = terminationSet()
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// - Parameter action: runs once, on a thread of its own, when a signal has come; later ones do nothing.
    static func onTermination(_ action: @escaping @Sendable () -> Void) {
        Thread.detachNewThread {
            var set = terminationSet()
            var number: Int32 = 0
            while sigwait(&set, &number) != 0 {}
            action()
        }
    }

    /// The same as if SIGTERM had come, once standard input ends: how the replicas of `mpaxos cluster` notice that their
    /// parent is gone, even when it was killed.
    static func terminateWhenInputEnds() {
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
