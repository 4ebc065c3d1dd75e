import MPaxosFrames
import MPaxosMessaging
import MPaxosWire
import Testing

@testable import MPaxosPipeline

@Suite struct ParcelTests {
    /// Parcels from one peer, let go at the end of a test.
    private final class Incoming {
        private var parcels: IncomingParcels

        init(largest: Int) { parcels = IncomingParcels(largest: largest) }
        deinit { parcels.removeAll() }

        var bytes: Int { parcels.bytes }

        /// Takes a piece of `payload`.
        func take(_ number: UInt64, _ payload: [UInt8], _ range: Range<Int>, size: Int? = nil) -> Bool {
            payload[range].withUnsafeBytes {
                parcels.take(parcel: number, offset: UInt64(range.lowerBound), size: UInt64(size ?? payload.count), $0)
            }
        }

        /// The frame that a DELIVER makes up, with a header of sevens.
        func deliver(_ number: UInt64) -> [UInt8]? {
            let frame = Frame()
            return parcels.deliver(parcel: number, header: ParcelTests.sevens, into: frame) ? Array(frame.bytes) : nil
        }

        func removeAll() { parcels.removeAll() }
    }

    private static let sevens = EncodedHeader {
        $0.initializeMemory(as: UInt8.self, repeating: 7, count: PeerHeader.size)
    }

    private static func payload(_ count: Int, _ salt: Int = 0) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 + salt) &* 31 + ($0 >> 8)) }
    }

    private static func whole(_ payload: [UInt8]) -> [UInt8] {
        [UInt8](repeating: 7, count: PeerHeader.size) + payload
    }

    /// The pieces of each come in order, those of several alternate.
    @Test func piecesMakeUpAWhole() {
        let incoming = Incoming(largest: 10_000)
        let first = Self.payload(10_000)
        let second = Self.payload(300, 5)
        #expect(incoming.take(1, first, 0..<4_000))
        #expect(incoming.take(2, second, 0..<299))
        #expect(incoming.take(1, first, 4_000..<8_000))
        #expect(incoming.take(2, second, 299..<300))
        #expect(incoming.take(1, first, 8_000..<10_000))
        #expect(incoming.bytes == 10_300)
        #expect(incoming.deliver(1) == Self.whole(first))
        #expect(incoming.deliver(2) == Self.whole(second))
        #expect(incoming.bytes == 0)
        #expect(incoming.deliver(1) == nil, "it is delivered once")
    }

    @Test func aParcelIsDeliveredOnlyWhole() {
        let incoming = Incoming(largest: 10_000)
        let payload = Self.payload(1_000)
        #expect(incoming.deliver(1) == nil, "there is none")
        #expect(incoming.take(1, payload, 0..<999))
        #expect(incoming.deliver(1) == nil, "a byte is missing")
        #expect(incoming.deliver(2) == nil, "there is another")
        #expect(incoming.take(1, payload, 999..<1_000))
        #expect(incoming.deliver(1) == Self.whole(payload))
    }

    /// A piece that does not go on where the one before ended is refused, and changes nothing.
    @Test func piecesOutOfOrder() {
        let incoming = Incoming(largest: 10_000)
        let payload = Self.payload(1_000)
        #expect(!incoming.take(1, payload, 100..<200), "the first piece was lost")
        #expect(incoming.bytes == 0)
        #expect(incoming.take(1, payload, 0..<100))
        #expect(!incoming.take(1, payload, 200..<300), "the second piece was lost")
        #expect(incoming.take(1, payload, 100..<200))
        #expect(!incoming.take(1, payload, 100..<200), "it came before")
        #expect(!incoming.take(1, payload, 150..<250), "a part of it came before")
        #expect(!incoming.take(1, payload, 200..<300, size: 999), "it says another size")
        #expect(!incoming.take(1, payload, 200..<300, size: 1_001), "it says another size")
        #expect(incoming.take(1, payload, 200..<1_000))
        #expect(!incoming.take(1, payload, 1_000..<1_000), "nothing is missing any more")
        #expect(incoming.deliver(1) == Self.whole(payload))
    }

    /// The first piece again, as of a peer that sends it anew: what came before is forgotten.
    @Test func aParcelBeginsAnew() {
        let incoming = Incoming(largest: 10_000)
        let old = Self.payload(1_000)
        let new = Self.payload(500, 9)
        #expect(incoming.take(1, old, 0..<900))
        #expect(incoming.take(1, new, 0..<200))
        #expect(incoming.bytes == 500)
        #expect(!incoming.take(1, old, 900..<1_000))
        #expect(incoming.take(1, new, 200..<500))
        #expect(incoming.deliver(1) == Self.whole(new))
    }

    @Test func whatIsTooLargeIsRefused() {
        let incoming = Incoming(largest: 1_000)
        let payload = Self.payload(1_001)
        #expect(!incoming.take(1, payload, 0..<100), "its payload may not be so large")
        #expect(!incoming.take(1, payload, 0..<1, size: .max), "nor that large")
        #expect(!incoming.take(1, payload, 0..<101, size: 100), "the piece is larger than the whole")
        #expect(incoming.take(1, payload, 0..<100, size: 1_000))
        #expect(!incoming.take(1, payload, 100..<1_001, size: 1_000), "the pieces are larger than the whole")
        #expect(incoming.take(1, payload, 100..<1_000, size: 1_000))
        #expect(incoming.bytes == 1_000)
    }

    /// A peer that begins parcel after parcel holds no more than the bound; the oldest go.
    @Test(arguments: [(1 << 20, IncomingParcels.mostBytes >> 20), (16, IncomingParcels.mostParcels)])
    func whatAPeerHoldsIsBounded(size: Int, kept: Int) {
        let incoming = Incoming(largest: 1 << 20)
        let payload = Self.payload(16)
        let count = kept + 20
        for number in 1...UInt64(count) {
            #expect(incoming.take(number, payload, 0..<8, size: size))
            #expect(incoming.bytes <= IncomingParcels.mostBytes && incoming.bytes <= kept * size)
        }
        #expect(incoming.bytes == kept * size)
        for number in 1...UInt64(count) {
            #expect(incoming.take(number, payload, 8..<16, size: size) == (number > 20), "parcel \(number)")
        }
    }

    /// One that is as large as all may be takes the place of all.
    @Test func theLargestOfAllFindsRoom() {
        let incoming = Incoming(largest: 2 * IncomingParcels.mostBytes)
        let payload = Self.payload(16)
        #expect(incoming.take(1, payload, 0..<8))
        #expect(!incoming.take(2, payload, 0..<8, size: IncomingParcels.mostBytes + 1), "whatever the log would take")
        #expect(incoming.bytes == 16)
        #expect(incoming.take(2, payload, 0..<8, size: IncomingParcels.mostBytes))
        #expect(incoming.bytes == IncomingParcels.mostBytes)
        #expect(!incoming.take(1, payload, 8..<16))
        #expect(incoming.take(3, payload, 0..<16))
        #expect(incoming.bytes == 16)
    }

    @Test func allIsForgotten() {
        let incoming = Incoming(largest: 1_000)
        let payload = Self.payload(100)
        #expect(incoming.take(1, payload, 0..<100))
        #expect(incoming.take(2, payload, 0..<50))
        incoming.removeAll()
        #expect(incoming.bytes == 0)
        #expect(incoming.deliver(1) == nil)
        #expect(!incoming.take(2, payload, 50..<100))
    }
}
