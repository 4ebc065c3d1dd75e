import MPaxosInvariants

/// Whether two buffers of one length hold the same bytes: by words, since keys are short and a call of `memcmp` is not.
@inline(__always)
func bytesAreEqual(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
    invariant(a.count == b.count, "buffers of one length are compared")
    guard let first = a.baseAddress, let second = b.baseAddress else { return true }
    let count = a.count
    var offset = 0
    while count - offset >= 8 {
        let left = first.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        if left != second.loadUnaligned(fromByteOffset: offset, as: UInt64.self) { return false }
        offset += 8
    }
    while offset < count {
        if first.load(fromByteOffset: offset, as: UInt8.self) != second.load(fromByteOffset: offset, as: UInt8.self) {
            return false
        }
        offset += 1
    }
    return true
}

/// Copies all of `source` to the start of `target`, checked in release builds too. They may overlap.
@inline(__always)
func copyBytes(_ source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer) {
    invariant(source.count <= target.count, "what is copied fits its place")
    guard let from = source.baseAddress, let to = target.baseAddress else { return }
    to.copyMemory(from: from, byteCount: source.count)
}
