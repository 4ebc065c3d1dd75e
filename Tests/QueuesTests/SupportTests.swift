import Foundation
import MPaxosCSupport
import Testing

/// CRC32C bit by bit, as its definition has it: the yardstick.
private func slowCRC(_ seed: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var crc = ~seed
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc >> 1 ^ (crc & 1 == 0 ? 0 : 0x82F6_3B78) }
    }
    return ~crc
}

@Suite struct SupportTests {
    /// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    @Test(
        arguments: [
            ([UInt8]("123456789".utf8), 0xE306_9283),
            ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
            ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
            ([UInt8](0..<32), 0x46DD_794E),
            ([UInt8]((0..<32).reversed()), 0x113F_DB5C),
            ([], 0),
        ] as [([UInt8], UInt32)])
    func knownChecksums(bytes: [UInt8], expected: UInt32) {
        #expect(csupport_crc32c(0, bytes, bytes.count) == expected)
        #expect(csupport_crc32c_portable(0, bytes, bytes.count) == expected)
    }

    @Test func thatOfAWordIsThatOfItsBytes() {
        var random = XorShift(seed: 6)
        for word in [0, 1, .max] + (0..<100).map({ _ in random.next() }) as [UInt64] {
            #expect(csupport_crc32c_word(word) == withUnsafeBytes(of: word) { csupport_crc32c(0, $0.baseAddress, 8) })
        }
    }

    /// Every length around the widths of the interleaved streams (3 x 128, 3 x 1024 bytes), at every alignment, against
    /// the definition.
    @Test func fastAndPortableAgreeWithTheDefinition() {
        var random = XorShift(seed: 5)
        let bytes = (0..<8192).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        bytes.withUnsafeBytes { all in
            var lengths = Array(0...80) + [383, 384, 385, 391, 392, 400, 767, 768, 769, 3071, 3072, 3073, 3455, 3456]
            lengths += [3457, 3463, 6143, 6144, 6145, 6528, 7000, 8184]
            for length in lengths {
                for offset in [0, 1, 3, 7, 8] where offset + length <= all.count {
                    let part = UnsafeRawBufferPointer(rebasing: all[offset..<(offset + length)])
                    let seed = UInt32(truncatingIfNeeded: random.next())
                    let expected = slowCRC(seed, part)
                    #expect(
                        csupport_crc32c(seed, part.baseAddress, length) == expected, "length \(length) at \(offset)")
                    #expect(csupport_crc32c_portable(seed, part.baseAddress, length) == expected)
                }
            }
        }
    }

    @Test func checksumsChain() {
        let bytes = [UInt8](0..<200)
        let whole = csupport_crc32c(0, bytes, 200)
        for cut in 0...200 {
            let first = csupport_crc32c(0, bytes, cut)
            #expect(bytes.withUnsafeBytes { csupport_crc32c(first, $0.baseAddress! + cut, 200 - cut) } == whole)
        }
    }

    @Test func eventDescriptorIsReadableUntilCleared() {
        let descriptor = csupport_eventfd()
        defer { close(descriptor) }
        func readable() -> Bool {
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            return poll(&entry, 1, 0) == 1
        }
        #expect(descriptor >= 0 && !readable())
        csupport_eventfd_clear(descriptor)  // returns although there is nothing
        csupport_eventfd_signal(descriptor)
        csupport_eventfd_signal(descriptor)
        #expect(readable())
        csupport_eventfd_clear(descriptor)
        #expect(!readable())
    }

    @Test func pinningHoldsForTheThreadThatAsks() {
        #expect(csupport_usable_cores() >= 1)
        let worker = Worker {
            // The cores that this process may use need not begin at 0.
            let core = (0..<1024).first { csupport_pin_thread(Int32($0)) == 0 }
            #expect(core != nil && csupport_usable_cores() == 1)
            #expect(csupport_pin_thread(-1) == EINVAL)
            #expect(csupport_name_thread("a name longer than fifteen bytes") == 0)
        }
        #expect(worker.join())
    }
}
