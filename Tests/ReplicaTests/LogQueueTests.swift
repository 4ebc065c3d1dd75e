import Dispatch
import Foundation
import Logging
import MPaxosInvariants
import Synchronization
import Testing

@testable import MPaxosMetrics
@testable import MPaxosReplica

@Suite struct LogQueueTests {
    let board = StatusBoard(members: [0])

    /// A reader that stands still costs lines, which are counted and told of; whoever logs never waits for it.
    @Test func linesBeyondWhatMayWait() async {
        let said = Said()
        let gate = DispatchSemaphore(value: 0)
        said.before = { gate.wait() }
        let queued = QueuedLog(before: said.logger, dropped: board.logLinesDropped)
        let logger = Logger(label: "queued") { _ in queued }
        for number in 0..<3000 { logger.info("line \(number)") }
        #expect(board.logLinesDropped.load() == UInt64(3000 - LineQueue<QueuedLog.Line>.mostLines))
        queued.queue.flush(milliseconds: 20)
        #expect(said.lines.isEmpty)
        said.before = nil
        for _ in 0..<3 { gate.signal() }
        queued.end()
        let lines = said.lines
        #expect(lines.first == "info line 0" && lines.contains("info line 1023"))
        // Told of once or twice, as the queue's thread comes to it.
        let told = lines.filter { $0.hasPrefix("warning dropped ") }
        #expect(told.reduce(0) { $0 + (Int($1.split(separator: " ")[2]) ?? 0) } == 1976, "\(told)")
        #expect(
            told.allSatisfy { $0.hasSuffix(" log lines, since the reader of the log (of standard error) was too slow") }
        )
        #expect(lines.count == LineQueue<QueuedLog.Line>.mostLines + told.count)
        logger.info("after")
        queued.end()
        #expect(said.lines.last == "info after")
        queued.queue.close()
    }

    /// Long lines are bounded together.
    @Test func longLines() {
        let said = Said()
        let gate = DispatchSemaphore(value: 0)
        said.before = { gate.wait() }
        let queued = QueuedLog(before: said.logger, dropped: board.logLinesDropped)
        let logger = Logger(label: "queued") { _ in queued }
        for _ in 0..<20 { logger.info("\(String(repeating: "x", count: 100_000))") }
        #expect(board.logLinesDropped.load() == 15)
        said.before = nil
        for _ in 0..<3 { gate.signal() }
        queued.end()
        #expect(said.lines.filter { $0.hasPrefix("info x") }.count == 5)
        queued.queue.close()
    }

    /// What was logged before a broken invariant explains it, and is written before.
    @Test func linesBeforeLastWords() async throws {
        let result = try await #require(processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]) {
            let said = Said()
            said.before = {
                usleep(100_000)
                FileHandle.standardError.write(Data("logged\n".utf8))
            }
            let queued = QueuedLog(before: said.logger, dropped: StatusBoard(members: [0]).logLinesDropped)
            let logger = Logger(label: "queued") { _ in queued }
            logger.info("one")
            logger.info("two")
            broken("a rule")
        }
        let text = String(decoding: result.standardErrorContent, as: UTF8.self)
        #expect(text.hasPrefix("logged\nlogged\nmpaxos: broken invariant: a rule"), "\(text)")
    }

    /// Last words do not wait for ever, neither for such lines nor for their own reader.
    @Test func lastWordsWithoutAReader() async {
        let begin = ContinuousClock.now
        await #expect(processExitsWith: .signal(SIGABRT)) {
            var ends: [Int32] = [0, 0]
            pipe(&ends)
            _ = fcntl(ends[1], F_SETFL, O_NONBLOCK)
            while write(ends[1], [UInt8](repeating: 0, count: 4096), 4096) > 0 {}
            _ = fcntl(ends[1], F_SETFL, 0)
            dup2(ends[1], STDERR_FILENO)
            let said = Said()
            said.before = { sleep(1000) }
            let queued = QueuedLog(before: said.logger, dropped: StatusBoard(members: [0]).logLinesDropped)
            Logger(label: "queued") { _ in queued }.info("one")
            broken("a rule")
        }
        #expect(.now - begin < .seconds(1000), "it waited for the handler")
    }

    /// Level and metadata are those of the logger that was given.
    @Test func passesOnWhatItIsGiven() {
        let said = Said()
        var given = said.logger
        given.logLevel = .notice
        let queued = QueuedLog(before: given, dropped: board.logLinesDropped)
        var logger = Logger(label: "queued") { _ in queued }
        logger[metadataKey: "a"] = "1"
        logger.info("not this")
        logger.notice("this", metadata: ["b": "2"])
        queued.end()
        #expect(said.lines == ["notice this a=1 b=2"])
        queued.queue.close()
    }
}
