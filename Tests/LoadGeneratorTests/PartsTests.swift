import Foundation
import Testing
import Wire

@testable import LoadGenerator

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

    @Test func framesOfAnyBytesAreReadWithinThem() {
        var state: UInt64 = 7
        func draw() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state
        }
        var outcomes = (incomplete: 0, frame: 0, bad: 0)
        for _ in 0..<20_000 {
            let count = Int(draw() % 40)
            let block = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
            defer { block.deallocate() }
            for index in block.indices { block[index] = draw() % 3 == 0 ? UInt8(draw() % 8) : UInt8(draw() & 0xFF) }
            let offset = Int(draw() % UInt64(count + 1))
            switch ZMTP.frame(UnsafeRawBufferPointer(block), at: offset, limit: 1 << 20) {
            case .incomplete: outcomes.incomplete += 1
            case .bad: outcomes.bad += 1
            case .frame(let head):
                outcomes.frame += 1
                #expect(head.bodyOffset >= offset + 2 && head.bodyCount >= 0)
                #expect(head.bodyOffset + head.bodyCount <= count)
            }
            _ = ZMTP.checkGreeting(UnsafeRawBufferPointer(block))
            _ = ZMTP.pong(to: UnsafeRawBufferPointer(block))
        }
        #expect(outcomes.incomplete > 100 && outcomes.frame > 100 && outcomes.bad > 100)
    }

    @Test func pingsAreAnsweredWithTheirContext() {
        let ping: [UInt8] = [4] + Array("PING".utf8) + [0, 10, 1, 2, 3]
        #expect(ping.withUnsafeBytes { ZMTP.pong(to: $0) } == [4, 8, 4] + Array("PONG".utf8) + [1, 2, 3])
        #expect(Array(ping.dropLast(4)).withUnsafeBytes { ZMTP.pong(to: $0) } == nil)
    }

    @Test func byteQueueKeepsOrderWhileItGrows() {
        var queue = ByteQueue(capacity: 8)
        defer { queue.release() }
        var written: UInt8 = 0
        var read: UInt8 = 0
        for step in 0..<2000 {
            let count = step * 7 % 23
            let place = queue.reserve(count)
            for index in 0..<count {
                place.storeBytes(of: written, toByteOffset: index, as: UInt8.self)
                written &+= 1
            }
            queue.commit(count)
            let taken = min(queue.count, step * 5 % 29)
            for index in 0..<taken {
                #expect(queue.bytes[index] == read)
                read &+= 1
            }
            queue.remove(taken)
        }
        queue.removeAll()
        #expect(queue.isEmpty)
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
        #expect(try Endpoint("ipc:///tmp/x").isLocal)
        for bad in ["127.0.0.1:1", "tcp://", "tcp://host", "tcp://:x:", "udp://h:1", "ipc://", "tcp://127.0.0.1:port"] {
            let error = #expect(throws: BenchError.self, "\(bad)") { try Endpoint(bad) }
            #expect(error?.kind == .usage)
        }
    }
}
