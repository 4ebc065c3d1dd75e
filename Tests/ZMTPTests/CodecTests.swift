import Testing

@testable import MPaxosZMTP

@Suite struct CodecTests {
    // MARK: Greeting

    @Test func bytesOfTheGreeting() {
        let start: [UInt8] = [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1, 0x4E, 0x55, 0x4C, 0x4C]
        #expect(Codec.greeting == start + [UInt8](repeating: 0, count: 48))
        #expect(Codec.greeting.count == Codec.greetingSize)
    }

    @Test func aGreetingIsAwaitedByteByByte() {
        for count in 0..<Codec.greetingSize {
            #expect(outcome(Codec.greeting.prefix(count)) == .incomplete, "\(count) bytes")
        }
        #expect(outcome(Codec.greeting) == .good)
        #expect(outcome(Codec.greeting + Codec.ready("REQ")) == .good)
    }

    /// For each wrong byte of a greeting: how many bytes must have come for it to be refused. What is no ZMTP 3 shows
    /// at once, a mechanism that is none of ours when all is there.
    @Test(
        arguments: [
            (0, 0x01, 1), (0, 0x00, 1), (0, 0x7F, 1), (9, 0x00, 10), (9, 0xFF, 10), (10, 0, 11), (10, 2, 11),
            (12, 0, 64), (12, 0x50, 64), (13, 0x6E, 64), (15, 0x4D, 64), (16, 0x41, 64),
        ] as [(Int, UInt8, Int)])
    func aWrongByteIsRefusedWhenItShows(place: Int, value: UInt8, seenAt: Int) {
        var bytes = Codec.greeting
        bytes[place] = value
        for count in 0...bytes.count {
            #expect(outcome(bytes.prefix(count)) == (count < seenAt ? .incomplete : .bad), "\(count) bytes")
        }
    }

    /// Of ZMTP 2.0: the thirteenth byte belongs to the identity.
    @Test(arguments: 0...11 as ClosedRange<UInt8>) func theGreetingOfVersion2(socketType: UInt8) {
        let bytes = OldClientTests.greeting(socketType) + [0, 0]
        let isClient = [3, 5, 6].contains(socketType)
        for count in 0...bytes.count {
            let expected: Codec.GreetingOutcome = count < 12 ? .incomplete : isClient ? .old : .bad
            #expect(outcome(bytes.prefix(count)) == expected, "\(count) bytes")
        }
    }

    @Test(arguments: ["PLAIN", "CURVE", "NUL", "null", "NULLS", ""])
    func otherMechanismsAreRefused(mechanism: String) {
        #expect(outcome(greeting(version: (3, 0), mechanism: mechanism)) == .bad)
    }

    @Test(arguments: [(3, 0), (3, 1), (3, 9), (4, 0), (255, 255)] as [(UInt8, UInt8)])
    func versionsFrom3OnAreTaken(major: UInt8, minor: UInt8) {
        #expect(outcome(greeting(version: (major, minor), mechanism: "NULL")) == .good)
    }

    /// Padding, the role, the filler: whatever they are.
    @Test func otherBytesDoNotMatter() {
        for place in Array(1...8) + [11] + Array(17..<Codec.greetingSize) {
            var bytes = Codec.greeting
            bytes[place] ^= 0xFF
            #expect(outcome(bytes) == .good, "byte \(place)")
        }
    }

    private func greeting(version: (UInt8, UInt8), mechanism: String) -> [UInt8] {
        let start: [UInt8] = [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, version.0, version.1] + Array(mechanism.utf8)
        return start + [UInt8](repeating: 0, count: Codec.greetingSize - start.count)
    }

    private func outcome(_ bytes: some Collection<UInt8>) -> Codec.GreetingOutcome {
        withBlock(bytes) { Codec.checkGreeting($0) }
    }

    // MARK: READY

    @Test func bytesOfReady() {
        let body = [5] + Array("READY".utf8) + [11] + Array("Socket-Type".utf8) + [0, 0, 0, 6] + Array("DEALER".utf8)
        #expect(Codec.ready("DEALER") == [4, 28] + body)
    }

    @Test(arguments: ["REQ", "DEALER", "ROUTER", ""]) func readReadyAgain(type: String) throws {
        let bytes = Codec.ready(type)
        let head = try #require(wholeFrame(in: bytes))
        #expect(head.isCommand && !head.hasMore && head.bodyOffset + head.bodyCount == bytes.count)
        #expect(socketType(Array(bytes[head.bodyOffset...])) == type)
    }

    @Test func theTypeIsFoundAmongOtherProperties() {
        let others: [(String, String)] = [
            ("Identity", ""), ("Resource", "x"), ("X-Socket-Type", "REP"), ("Socket-Types", "REP"),
            ("Socket-Typ", "REP"), ("", ""),
            (String(repeating: "n", count: 255), String(repeating: "v", count: 70_000)),
        ]
        for place in 0...others.count {
            var properties = others
            properties.insert(("Socket-Type", "ROUTER"), at: place)
            #expect(socketType(ready(properties)) == "ROUTER", "property \(place)")
        }
        #expect(socketType(ready(others)) == nil)
        #expect(socketType(ready([])) == nil)
    }

    @Test(arguments: ["socket-type", "SOCKET-TYPE", "sOcKeT-tYpE"]) func namesHaveNoCase(name: String) {
        #expect(socketType(ready([("Identity", "Socket-Type"), (name, "REQ")])) == "REQ")
    }

    @Test func otherCommandsHaveNoType() {
        for name in ["READ", "READYS", "ready", "PING", "ERROR", ""] {
            let property = ready([("Socket-Type", "REQ")]).dropFirst(6)
            #expect(socketType([UInt8(name.utf8.count)] + Array(name.utf8) + property) == nil, "\(name)")
        }
        #expect(socketType([]) == nil && socketType([5]) == nil)
    }

    @Test func aPartOfReadyHasNoType() {
        let whole = ready([("Identity", "abc"), ("Socket-Type", "DEALER")])
        for count in 0..<whole.count { #expect(socketType(Array(whole.prefix(count))) == nil, "\(count) bytes") }
        #expect(socketType(whole) == "DEALER")
    }

    @Test func wrongLengthsAreRefused() {
        let whole = ready([("Socket-Type", "DEALER")])
        // The name's length, then the four bytes of the value's.
        for (place, value) in [(6, 12), (6, 18), (6, 255), (21, 7), (20, 1), (18, 0x80), (18, 0xFF)] {
            var bytes = whole
            bytes[place] = UInt8(value)
            #expect(socketType(bytes) == nil, "byte \(place) is \(value)")
        }
        var longest = whole
        longest.replaceSubrange(18..<22, with: [0xFF, 0xFF, 0xFF, 0xFF])
        #expect(socketType(longest) == nil)
        // A length that is too short takes what follows for the next property.
        var short = ready([("Identity", "abcdefgh"), ("Socket-Type", "DEALER")])
        short[18] = 1
        #expect(socketType(short) == nil)
    }

    @Test func anyBytesAfterReadyAreReadWithinThem() {
        var draws = Draws(seed: 11)
        var found = 0
        let kinds = [[], ready([]), ready([("Identity", "")]), ready([("Identity", "x"), ("Socket-Type", "REQ")])]
        for _ in 0..<20_000 {
            var bytes = kinds[draws.below(kinds.count)]
            for _ in 0..<draws.below(4) where !bytes.isEmpty {
                bytes[draws.below(bytes.count)] = UInt8(draws.below(draws.below(2) == 0 ? 8 : 256))
            }
            for _ in 0..<draws.below(12) { bytes.append(UInt8(draws.below(draws.below(3) == 0 ? 256 : 4))) }
            bytes.removeLast(draws.below(bytes.count + 1) / 4)
            if socketType(bytes) != nil { found += 1 }
        }
        #expect(found > 500 && found < 10_000, "\(found) with a type")
    }

    private func ready(_ properties: [(String, String)]) -> [UInt8] {
        var bytes: [UInt8] = [5] + Array("READY".utf8)
        for (name, value) in properties {
            bytes += [UInt8(name.utf8.count)] + Array(name.utf8)
            withUnsafeBytes(of: UInt32(value.utf8.count).bigEndian) { bytes.append(contentsOf: $0) }
            bytes += Array(value.utf8)
        }
        return bytes
    }

    private func socketType(_ body: [UInt8]) -> String? {
        withBlock(body) { Codec.socketType(inReady: $0) }
    }

    // MARK: Frames

    static let sizes = [0, 1, 255, 256, 70_000]

    @Test(arguments: sizes, [false, true]) func whatIsWrittenIsReadAgain(size: Int, more: Bool) throws {
        let content = pattern(size)
        let bytes = makeFrame(content, more: more)
        let headSize = size < 256 ? Codec.shortHead : Codec.longHead
        #expect(bytes.count == Codec.size(ofFrame: size) && bytes.count == headSize + size)
        // Somewhere in a stream: what is around it does not matter.
        let head = try #require(wholeFrame(in: [0xFF, 0xFF, 0xFF] + bytes + [0xFF], at: 3, limit: size))
        #expect(!head.isCommand && head.hasMore == more)
        #expect(head.bodyOffset == 3 + headSize && head.bodyCount == size)
        #expect(Array(bytes[headSize...]) == content)
    }

    @Test func heads() {
        #expect(makeFrame([]) == [0, 0])
        #expect(makeFrame([7], more: true) == [1, 1, 7])
        #expect(makeFrame(pattern(255)).prefix(2) == [0, 255])
        #expect(makeFrame(pattern(256)).prefix(9) == [2, 0, 0, 0, 0, 0, 0, 1, 0])
        #expect(makeFrame(pattern(70_000), more: true).prefix(9) == [3, 0, 0, 0, 0, 0, 1, 0x11, 0x70])
    }

    @Test(arguments: sizes) func aFrameIsAwaitedToItsLastByte(size: Int) {
        let bytes = makeFrame(pattern(size))
        for count in Set([0, 1, 2, 3, 8, 9, 10, bytes.count - 1]) where count < bytes.count {
            #expect(isIncomplete(bytes.prefix(count)), "\(count) bytes")
        }
        #expect(isIncomplete(bytes, at: bytes.count) && isIncomplete(bytes, at: bytes.count + 1))
    }

    /// Before its content has come.
    @Test(arguments: sizes.dropFirst()) func aFrameAboveTheLimitIsBadAtOnce(size: Int) {
        let bytes = makeFrame(pattern(size))
        #expect(wholeFrame(in: bytes, limit: size) != nil)
        #expect(isBad(bytes, limit: size - 1) && isBad(bytes.prefix(9), limit: size - 1))
        if size < 256 { #expect(isBad(bytes.prefix(2), limit: size - 1)) }
    }

    @Test func lengthsBeyondAllMemoryAreBad() {
        for first in [0x7F, 0x80, 0xFF] as [UInt8] {
            let bytes: [UInt8] = [2, first, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]
            #expect(isBad(bytes, limit: 1 << 40))
            #expect(first == 0x7F ? isIncomplete(bytes, limit: .max) : isBad(bytes, limit: .max))
        }
    }

    /// RFC 23 asks for short heads where they do; nobody has to.
    @Test func longHeadsMayHaveShortContents() throws {
        let head = try #require(wholeFrame(in: [2, 0, 0, 0, 0, 0, 0, 0, 1, 9]))
        #expect(head.bodyOffset == 9 && head.bodyCount == 1)
    }

    @Test func flags() throws {
        for flags in 0...255 {
            let bytes = [UInt8(flags)] + [UInt8](repeating: 0, count: 8)
            if flags > 7 {
                #expect(isBad(bytes))
            } else {
                let head = try #require(wholeFrame(in: bytes))
                #expect(head.hasMore == (flags & 1 != 0) && head.isCommand == (flags & 4 != 0))
                #expect(head.bodyOffset == (flags & 2 != 0 ? 9 : 2) && head.bodyCount == 0)
            }
        }
    }

    @Test func framesOfAnyBytesAreReadWithinThem() {
        var draws = Draws(seed: 7)
        var outcomes = (incomplete: 0, frame: 0, bad: 0)
        for _ in 0..<20_000 {
            let bytes = (0..<draws.below(40)).map { _ in
                draws.below(3) == 0 ? UInt8(draws.below(8)) : UInt8(draws.below(256))
            }
            let offset = draws.below(bytes.count + 1)
            withBlock(bytes) { block in
                switch Codec.frame(block, at: offset, limit: 1 << 20) {
                case .incomplete: outcomes.incomplete += 1
                case .bad: outcomes.bad += 1
                case .frame(let head):
                    outcomes.frame += 1
                    #expect(head.bodyOffset >= offset + 2 && head.bodyCount >= 0)
                    #expect(head.bodyOffset + head.bodyCount <= bytes.count)
                }
                _ = Codec.checkGreeting(block)
                _ = Codec.pong(to: block)
            }
        }
        #expect(outcomes.incomplete > 100 && outcomes.frame > 100 && outcomes.bad > 100)
    }

    private func wholeFrame(in bytes: [UInt8], at offset: Int = 0, limit: Int = 1 << 20) -> Codec.FrameHead? {
        guard case .frame(let head) = withBlock(bytes, { Codec.frame($0, at: offset, limit: limit) }) else {
            return nil
        }
        return head
    }

    private func isIncomplete(_ bytes: some Collection<UInt8>, at offset: Int = 0, limit: Int = 1 << 20) -> Bool {
        if case .incomplete = withBlock(bytes, { Codec.frame($0, at: offset, limit: limit) }) { return true }
        return false
    }

    private func isBad(_ bytes: some Collection<UInt8>, limit: Int = 1 << 20) -> Bool {
        if case .bad = withBlock(bytes, { Codec.frame($0, at: 0, limit: limit) }) { return true }
        return false
    }

    // MARK: Heartbeats

    @Test func pingsAreAnsweredWithTheirContext() {
        for count in 0...16 {
            let ping = [4] + Array("PING".utf8) + [0, 10] + pattern(count, seed: 3)
            let pong = [4, UInt8(5 + count), 4] + Array("PONG".utf8) + pattern(count, seed: 3)
            #expect(withBlock(ping) { Codec.pong(to: $0) } == pong, "\(count) bytes of context")
        }
    }

    @Test func nothingElseIsAnswered() {
        let ping: [UInt8] = [4] + Array("PING".utf8) + [0, 10]
        for count in 0..<ping.count { #expect(withBlock(ping.prefix(count)) { Codec.pong(to: $0) } == nil) }
        #expect(withBlock(ping + pattern(17)) { Codec.pong(to: $0) } == nil, "a context that is too long")
        for place in 0..<5 {
            var other = ping
            other[place] ^= 0x20
            #expect(withBlock(other) { Codec.pong(to: $0) } == nil, "byte \(place)")
        }
    }
}
