import MPaxosFrames
import MPaxosMessaging
import Testing

/// Sizes on both sides of libzmq's limit for content within the structure (33 bytes), and of its larger classes.
private let sizes = [0, 1, 32, 33, 34, 128, 65_536]

@Suite struct FrameTests {
    @Test(arguments: sizes) func carriesItsContent(size: Int) {
        let frame = Frame()
        #expect(frame.count == 0 && frame.bytes.count == 0 && !frame.hasMore)
        pattern(size).withUnsafeBytes { frame.rebuild(copying: $0) }
        #expect([UInt8](frame.bytes) == pattern(size))
        frame.rebuild(size: 5)
        frame.bytes.copyBytes(from: [1, 2, 3, 4, 5])
        #expect([UInt8](frame.bytes) == [1, 2, 3, 4, 5])
        frame.clear()
        #expect(frame.count == 0)
        let copied = makeFrame(pattern(size))
        #expect([UInt8](copied.bytes) == pattern(size))
        #expect(Frame(size: size).count == size)
    }

    @Test(arguments: sizes) func movesThroughARawValue(size: Int) {
        let frame = makeFrame(pattern(size))
        let raw = frame.take()
        #expect(frame.count == 0)
        let other = Frame(size: 100)
        other.adopt(raw)
        #expect([UInt8](other.bytes) == pattern(size))
        other.take().discard()
        #expect(other.count == 0)
        RawFrame().discard()
    }

    @Test(arguments: sizes) func shares(size: Int) {
        let frame = makeFrame(pattern(size))
        let shared = Frame()
        shared.share(from: frame)
        #expect([UInt8](shared.bytes) == pattern(size) && [UInt8](frame.bytes) == pattern(size))
        frame.clear()
        #expect([UInt8](shared.bytes) == pattern(size))
    }
}
