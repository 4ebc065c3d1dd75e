import Testing

@testable import MPaxosWire

@Suite struct ClientHeaderTests {
    @Test func requestHasTheBytesOfTheProtocol() {
        var header = RequestHeader(
            .submit, flags: [.noForward], session: 0x0102_0304_0506_0708, sequence: 0x1112_1314_1516_1718,
            position: 0x2122_2324_2526_2728)
        header.reserved = 0xBEEF
        let bytes = written(32) { header.encode(into: $0) }
        #expect(
            bytes == [
                0x4D, 0x50, 0x58, 0x31, 2, 1, 0xEF, 0xBE, 8, 7, 6, 5, 4, 3, 2, 1,
                0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
            ])
        #expect(withExactBytes(bytes) { RequestHeader(decoding: $0) } == header)
    }

    @Test func replyHasTheBytesOfTheProtocol() {
        let header = ReplyHeader(
            .full, flags: RequestFlags(rawValue: 0xF3), replica: 0x0201, session: 3, sequence: 4, position: 5)
        let bytes = written(32) { header.encode(into: $0) }
        #expect(
            bytes == [
                0x4D, 0x50, 0x58, 0x31, 8, 0xF3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0,
                4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
            ])
        #expect(withExactBytes(bytes) { ReplyHeader(decoding: $0) } == header)
    }

    @Test func codesAreThoseOfTheProtocol() {
        #expect(CommandCode.allCases.map(\.rawValue) == [1, 2, 3, 4, 5, 6])
        #expect(StatusCode.allCases.map(\.rawValue) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        #expect(RequestFlags.noForward.rawValue == 1 && RequestFlags.local.rawValue == 2)
    }

    @Test func everyOtherSizeAndMagicIsRefused() {
        let good = written(32) { RequestHeader(.ping).encode(into: $0) }
        for size in 0...64 where size != 32 {
            let bytes = Array((good + good).prefix(size))
            #expect(withExactBytes(bytes) { RequestHeader(decoding: $0) } == nil)
            #expect(withExactBytes(bytes) { ReplyHeader(decoding: $0) } == nil)
        }
        for index in 0..<4 {
            var bytes = good
            bytes[index] ^= 0x20
            #expect(withExactBytes(bytes) { RequestHeader(decoding: $0) } == nil)
            #expect(withExactBytes(bytes) { ReplyHeader(decoding: $0) } == nil)
        }
        var unknownStatus = good
        unknownStatus[4] = 10
        #expect(withExactBytes(unknownStatus) { ReplyHeader(decoding: $0) } == nil)
        #expect(RequestHeader(decoding: UnsafeRawBufferPointer(start: nil, count: 0)) == nil)
    }
}
