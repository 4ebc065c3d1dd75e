import Testing

@testable import MPaxosPipeline

@Suite struct EnvelopeTests {
    private func pack(_ frames: [[UInt8]], into envelope: inout Envelope) -> Bool {
        envelope.clear()
        return frames.allSatisfy { $0.withUnsafeBytes { envelope.append($0) } }
    }

    private func unpack(_ packed: UnsafeRawBufferPointer) -> [[UInt8]] { Envelope.Frames(packed).map { Array($0) } }

    /// Frames come out as they went in, also at another, odd place.
    @Test(arguments: [
        [], [[]], [[1, 2, 3, 4, 5], []], [[7], [], [8, 9], []],
        [[UInt8]](repeating: [UInt8](repeating: 0xAB, count: Envelope.maximumFrameSize), count: Envelope.maximumFrames),
    ])
    func framesComeOutAsTheyWentIn(frames: [[UInt8]]) {
        var envelope = Envelope()
        _ = pack([[1], [2, 3]], into: &envelope)
        let isPacked = pack(frames, into: &envelope)
        #expect(isPacked)
        #expect(unpack(envelope.packed) == frames)
        let moved = [0] + envelope.packed
        moved.withUnsafeBytes { #expect(unpack(.init(rebasing: $0[1...])) == frames) }
        #expect(moved.count - 1 <= Envelope.maximumSize)
    }

    /// What is left is a sequence of its own, to be gone through as often as one likes.
    @Test func theRestBehindAFrame() {
        var envelope = Envelope()
        let isPacked = pack([[1], [2], [3]], into: &envelope)
        #expect(isPacked)
        var frames = Envelope.Frames(envelope.packed)
        #expect(frames.next().map { Array($0) } == [1])
        for _ in 0..<2 { #expect(frames.map { Array($0) } == [[2], [3]]) }
    }

    @Test func moreThanMayBe() {
        var envelope = Envelope()
        let tooLong = pack([[UInt8](repeating: 0, count: Envelope.maximumFrameSize + 1)], into: &envelope)
        let tooMany = pack([[UInt8]](repeating: [], count: Envelope.maximumFrames + 1), into: &envelope)
        #expect(!tooLong && !tooMany)
        #expect(unpack(envelope.packed).count == Envelope.maximumFrames)
    }
}
