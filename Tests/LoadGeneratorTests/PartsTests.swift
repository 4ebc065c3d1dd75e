import Foundation
import MPaxosWire
import Testing

@testable import MPaxosLoadGenerator

@Suite struct PartsTests {
    @Test func bytesOfAPut() {
        let template = RequestTemplate.put(.noForward, valueSizes: 10...10)
        defer { template.release() }
        let bytes = [UInt8](unsafeUninitializedCapacity: template.count(valueSize: 0)) { buffer, count in
            template.write(
                into: UnsafeMutableRawPointer(buffer.baseAddress!), session: 0x0102, sequence: 0x0304, key: 987)
            count = template.count(valueSize: 0)
        }
        #expect(Array(bytes[0..<4]) == [1, 0, 1, 32])
        let header = bytes[4..<36].withUnsafeBytes { RequestHeader(decoding: $0) }
        #expect(header == RequestHeader(.submit, flags: .noForward, session: 0x0102, sequence: 0x0304))
        #expect(Array(bytes[36..<38]) == [0, 31])
        #expect(Array(bytes[38..<59]) == [0x50, 16, 0, 0, 0] + Array("key-000000000987".utf8))
        #expect(bytes.count == 69)
        #expect(Array(bytes[67...]) == Array("ij".utf8))
    }

    @Test func longBodiesHaveLongFrames() {
        let template = RequestTemplate.put([], valueSizes: 300...300)
        defer { template.release() }
        let bytes = [UInt8](unsafeUninitializedCapacity: template.count(valueSize: 0)) { buffer, count in
            template.write(
                into: UnsafeMutableRawPointer(buffer.baseAddress!), session: 1, sequence: 1,
                key: RequestTemplate.largestKeyCount - 1)
            count = template.count(valueSize: 0)
        }
        #expect(Array(bytes[36..<45]) == [2, 0, 0, 0, 0, 0, 0, 1, 65])
        #expect(bytes.count == 45 + 321)
        #expect(Array(bytes[50..<66]) == Array("key-999999999999".utf8))
    }

    @Test func numberQueueIsFirstInFirstOut() {
        var queue = NumberQueue(capacity: 3)
        defer { queue.release() }
        #expect(queue.pop() == nil && queue.isEmpty)
        for round in 0..<5 {
            for number in 0..<3 { queue.push(round * 3 + number) }
            #expect(queue.count == 3)
            #expect((0..<3).map { _ in queue.pop() } == (0..<3).map { round * 3 + $0 })
            queue.push(100)
            #expect(queue.pop() == 100)
        }
    }

    @Test func schedulesDoNotDrift() {
        var schedule = ArrivalSchedule(rate: 3, origin: 1000)
        var due: [UInt64] = []
        for _ in 0..<7 { due.append(schedule.take()) }
        #expect(due == [1000, 333_334_333, 666_667_666, 1_000_001_000, 1_333_334_333, 1_666_667_666, 2_000_001_000])
        #expect(schedule.next > due[6])
    }

    @Test func sequencesCarryTheSessionsNumber() {
        var session = Session(number: 77)
        var last: UInt64 = 0
        for _ in 0..<100 {
            session.advance()
            #expect(session.sequence > last)
            #expect(Session.number(of: session.sequence) == 77)
            last = session.sequence
        }
    }

    @Test func endpoints() throws {
        #expect(try Endpoint("tcp://127.0.0.1:7200").isLocal)
        #expect(try Endpoint("tcp://127.8.0.1:7200").isLocal)
        #expect(try Endpoint("tcp://[::1]:7200").isLocal)
        #expect(try !Endpoint("tcp://192.0.2.1:7200").isLocal)
        #expect(try Endpoint("tcp://[::ffff:127.0.0.1]:7200").isLocal)
        #expect(try !Endpoint("tcp://[2001:db8::1]:7200").isLocal)
        #expect(try Endpoint("ipc:///tmp/x").isLocal)
        #expect(try Endpoint("ipc://@x").isLocal)
        #expect(try Endpoint("tcp://127.0.0.1:7200").text == "tcp://127.0.0.1:7200")
        for bad in [
            "127.0.0.1:1", "tcp://", "tcp://host", "tcp://:x:", "udp://h:1", "ipc://", "tcp://127.0.0.1:port",
            "tcp://127.0.0.1:70000", "tcp://127.0.0.1:", "tcp://*:7200",
        ] {
            let error = #expect(throws: BenchError.self, "\(bad)") { try Endpoint(bad) }
            #expect(error?.kind == .usage && error?.description.hasPrefix("\(bad): ") == true)
        }
    }
}
