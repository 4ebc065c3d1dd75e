import Glibc

/// The 64-byte lines of the data area that the coming commit will write: a bitmap for the question, a list for the walk.
///
/// The bitmap is zero pages of the kernel until touched, so opening a large heap costs nothing.
@usableFromInline
struct DirtyLines {
    @usableFromInline static let lineSize = 64

    @usableFromInline let bitmap: UnsafeMutablePointer<UInt64>
    /// Line numbers in the order in which they were first written.
    @usableFromInline var list: UnsafeMutablePointer<UInt64>
    @usableFromInline var count = 0
    @usableFromInline var capacity: Int
    private let lines: Int

    init(lines: Int, capacity: Int) {
        precondition(lines > 0, "a heap of no lines")
        precondition(capacity > 0, "a journal that holds no line")
        self.lines = lines
        self.capacity = capacity
        bitmap = zeroedMemory((lines + 63) / 64)
        list = zeroedMemory(capacity)
    }

    func deallocate() {
        free(bitmap)
        free(list)
    }

    /// The range must not be empty and lie in the area; the caller has checked that.
    @inlinable mutating func mark(_ offset: UInt64, _ bytes: Int) {
        var line = offset >> 6
        let last = (offset &+ UInt64(truncatingIfNeeded: bytes) &- 1) >> 6
        repeat {
            let word = bitmap + Int(truncatingIfNeeded: line >> 6)
            let bit: UInt64 = 1 << (line & 63)
            if word.pointee & bit == 0 {
                word.pointee |= bit
                if count == capacity { grow() }
                list[count] = line
                count &+= 1
            }
            line &+= 1
        } while line <= last
    }

    /// Forgets the lines that were first marked when there were `kept`, newest first.
    mutating func truncate(to kept: Int) {
        precondition(kept >= 0, "a negative number of lines")
        precondition(kept <= count, "cannot truncate to more lines than there are")
        for index in kept..<count {
            let line = list[index]
            bitmap[Int(line >> 6)] &= ~(1 << (line & 63))
        }
        count = kept
    }

    /// Only a command that overflows the journal comes here, and it will be rolled back.
    @usableFromInline @inline(never)
    mutating func grow() {
        precondition(capacity <= lines, "more dirty lines than lines")
        let larger: UnsafeMutablePointer<UInt64> = zeroedMemory(capacity * 2)
        larger.update(from: list, count: count)
        free(list)
        list = larger
        capacity *= 2
    }
}

/// `count` zeroed elements; large ones are untouched pages of the kernel, so they cost only what is used of them.
func zeroedMemory<Element: BitwiseCopyable>(_ count: Int) -> UnsafeMutablePointer<Element> {
    precondition(count > 0, "no elements to allocate")
    guard let memory = calloc(count, MemoryLayout<Element>.stride) else {
        fatalError("out of memory: \(count * MemoryLayout<Element>.stride) bytes")
    }
    return memory.assumingMemoryBound(to: Element.self)
}
