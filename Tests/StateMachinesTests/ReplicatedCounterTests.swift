import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

@Suite struct ReplicatedCounterTests {
    @Test func countsAcrossRollbackAndRestart() throws {
        let store = try TestStore()
        var counter = ReplicatedCounter(in: store.transaction)
        #expect(store.query([], of: counter) == Int64(0).littleEndianBytes)
        #expect(try store.apply(Int64(40).littleEndianBytes, to: counter) == Int64(40).littleEndianBytes)
        store.transaction.commit()
        store.applyAndRollBack(Int64(1).littleEndianBytes, to: counter)
        #expect(try store.apply(Int64(2).littleEndianBytes, to: counter) == Int64(42).littleEndianBytes)
        try store.reopen()
        counter = ReplicatedCounter(in: store.transaction)
        #expect(store.query([], of: counter) == Int64(40).littleEndianBytes)
    }

    @Test func validatesLengths() {
        for count in 0...16 {
            let body = [UInt8](repeating: 0, count: count)
            #expect((withBytes(body) { ReplicatedCounter.validate($0, as: .submit) } == nil) == (count == 8))
            #expect((withBytes(body) { ReplicatedCounter.validate($0, as: .query) } == nil) == (count == 0))
        }
    }
}
