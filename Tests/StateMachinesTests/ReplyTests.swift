import MPaxosStateMachines
import Testing

@Suite struct ReplyTests {
    @Test func appendsLittleEndian() {
        var reply = Reply(maxRequest: 100)
        reply.append(byte: 7)
        reply.append(littleEndian: UInt32(0x0403_0201))
        reply.append(littleEndian: Int64(-2))
        reply.append(text: "é" as StaticString)
        reply.append(text: "a" + String(1))
        withBytes([9, 8]) { reply.append(bytes: $0) }
        reply.append(bytes: UnsafeRawBufferPointer(start: nil, count: 0))
        reply.replace(littleEndian: UInt16(0x0b0a), at: 1)
        #expect(
            Array(reply.bytes) == [
                7, 0x0a, 0x0b, 3, 4, 0xfe, 255, 255, 255, 255, 255, 255, 255, 0xc3, 0xa9, 0x61, 0x31, 9, 8,
            ])
        #expect(reply.count == 19 && !reply.overflowed)
        reply.removeAll()
        #expect(reply.count == 0 && reply.bytes.isEmpty)
    }

    /// A machine that gives what is not its own would have every replica keep it: it is stopped before.
    @Test func aSliceBeyondItsBlockStopsTheMachine() async throws {
        let store = try TestStore()
        let block = try store.transaction.allocate(200)
        var reply = Reply(maxRequest: 4096)
        reply.give(BlockSlice(of: block, start: 16, count: 184), in: store.transaction)
        #expect(reply.count == 184 && reply.given != nil)
        await #expect(processExitsWith: .failure) {
            let store = try TestStore()
            let block = try store.transaction.allocate(200)
            var reply = Reply(maxRequest: 4096)
            reply.give(BlockSlice(of: block, start: 16, count: 600), in: store.transaction)
        }
    }

    @Test func holdsItsCapacityAndNotAByteMore() {
        var reply = Reply(maxRequest: 10)
        #expect(reply.capacity == 1050)
        for _ in 0..<1046 { reply.append(byte: 1) }
        reply.append(littleEndian: UInt32(2))
        #expect(reply.count == 1050 && !reply.overflowed)
        reply.append(byte: 3)
        #expect(reply.count == 1050 && reply.overflowed)
        reply.removeAll()
        #expect(reply.overflowed == false)
        for _ in 0..<1046 { reply.append(byte: 1) }
        reply.append(littleEndian: UInt64(2))
        // What came after the overflow is not there either, though it would fit.
        reply.append(byte: 4)
        #expect(reply.count == 1046 && reply.overflowed)
    }
}
