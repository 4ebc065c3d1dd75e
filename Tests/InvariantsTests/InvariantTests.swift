import Foundation
import MPaxosCSupport
import MPaxosInvariants
import Testing

/// What a process says before a broken invariant ends it. Each in a process of its own.
@Suite struct InvariantTests {
    @Test func whatHoldsIsSilent() {
        var evaluations = 0
        for _ in 0..<3 {
            invariant(
                {
                    evaluations += 1
                    return true
                }(), "a condition is evaluated once")
        }
        #expect(evaluations == 3)
    }

    /// File, line and rule; whom the thread works for is not known.
    @Test func whatIsBrokenSaysWhereAndWhich() async throws {
        let result = try await #require(
            processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
        ) {
            invariant(1 + 1 == 3, "a sum is right")
        }
        #expect(
            text(result.standardErrorContent).wholeMatch(
                of: /mpaxos: broken invariant: a sum is right \(InvariantsTests\/InvariantTests\.swift:\d+\)\n/) != nil,
            "\(text(result.standardErrorContent))")
    }

    @Test func placesThatAreNeverReached() async throws {
        let result = try await #require(
            processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
        ) {
            broken("control never comes here")
        }
        #expect(
            text(result.standardErrorContent).hasPrefix("mpaxos: broken invariant: control never comes here (Invari"))
    }

    @Test func whoeverTheThreadWorksForIsNamed() async throws {
        let result = try await #require(
            processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
        ) {
            let words = UnsafeMutablePointer<UInt64>.allocate(capacity: 4)
            words.initialize(repeating: 0, count: 4)
            (words[0], words[1], words[2], words[3]) = (7, 120, 118, .max)
            csupport_stand(
                csupport_standing(
                    who: strdup("replica"), number: 4, view: words, decided: words + 1, executed: words + 2,
                    position: words + 3))
            words[2] = 119
            invariant(false, "words are read when they are told", file: "Some/File.swift", line: 12)
        }
        #expect(
            text(result.standardErrorContent)
                == "mpaxos: broken invariant: words are read when they are told (Some/File.swift:12); replica 4, view 7, "
                + "decided 120, executed 119, position 18446744073709551615\n")
    }

    @Test func otherThreadsWorkForOthers() async throws {
        let result = try await #require(
            processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
        ) {
            csupport_stand(
                csupport_standing(
                    who: strdup("seed"), number: 1, view: nil, decided: nil, executed: nil, position: nil))
            let before = csupport_stand(csupport_standing())
            csupport_stand(before)
            Thread.detachNewThread { halt("no disk") }
            while true { sleep(1) }
        }
        #expect(text(result.standardErrorContent) == "mpaxos: stopped: no disk\n")
    }

    /// What Swift stops by itself has no rule, but the replica and its place are said; the signal ends the process all
    /// the same.
    @Test func faultsOfOtherKindsAreTold() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            tellOfFaults()
            csupport_stand(
                csupport_standing(
                    who: strdup("replica"), number: 3, view: nil, decided: nil, executed: nil, position: nil))
            _ = Array(0..<getpid()).map { $0 + .max }
        }
        let said = text(result.standardErrorContent)
        #expect(
            said.contains(
                /mpaxos: stopped: signal \d+: a check of the program's own failed, .*; replica 3\n/
            ),
            "\(said)")
        let sent = try await #require(processExitsWith: .signal(SIGBUS), observing: [\.standardErrorContent]) {
            tellOfFaults()
            kill(getpid(), SIGBUS)
            while true { sleep(1) }
        }
        #expect(
            text(sent.standardErrorContent).hasPrefix("mpaxos: stopped: signal 7: a page of a file could not be had"))
    }

    /// Whatever is said fits one line, and ends.
    @Test func longReasonsAreCutOff() async throws {
        let result = try await #require(
            processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
        ) {
            csupport_stand(
                csupport_standing(
                    who: strdup(String(repeating: "w", count: 4000)), number: 1, view: nil, decided: nil, executed: nil,
                    position: nil))
            halt(String(repeating: "r", count: 4000))
        }
        let said = text(result.standardErrorContent)
        #expect(said.count == 2048 && said.hasSuffix("w\n") && said.contains(String(repeating: "r", count: 1024) + ";"))
    }

    private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}
