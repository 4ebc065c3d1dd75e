import Glibc
import MPaxosInvariants

/// The 64-byte lines of the data area that the coming commit will write: a bitmap for the question, a word of it for
/// each page; a list for the walk.
///
/// The bitmap is zero pages of the kernel until touched, so opening a large heap costs nothing.
@usableFromInline
struct DirtyLines {
    @usableFromInline static let lineSize = 64

    @usableFromInline let bitmap: UnsafeMutablePointer<UInt64>
    /// Line numbers in the order in which they were first written.
    @usableFromInline var list: UnsafeMutablePointer<UInt64>
    @usableFromInline var count = 0
    /// Lines that the list has room for: `mark` adds at most 64 at a time, and looks once.
    @usableFromInline var room: Int
    private let lines: Int

    init(lines: Int, capacity: Int) {
        invariant(lines > 0, "a heap has lines")
        invariant(capacity > 0, "a journal holds a line at least")
        self.lines = lines
        room = capacity + 64
        bitmap = zeroedMemory((lines + 63) / 64)
        list = zeroedMemory(room)
    }

    func deallocate() {
        free(bitmap)
        free(list)
    }

    /// The range must not be empty and lie in the area; the caller has checked that.
    /// - Returns: whether one of its lines was marked before.
    @inlinable mutating func mark(_ offset: UInt64, _ bytes: Int) -> Bool {
        var line = offset >> 6
        let last = (offset &+ UInt64(truncatingIfNeeded: bytes) &- 1) >> 6
        var known: UInt64 = 0
        repeat {
            // The lines of one page at a time: a word of the bitmap.
            let page = line >> 6
            let end = min(last, line | 63)
            let wanted = (~0 &>> (63 &- (end &- line))) &<< (line & 63)
            let word = bitmap + Int(truncatingIfNeeded: page)
            var fresh = wanted & ~word.pointee
            known |= wanted & word.pointee
            word.pointee |= wanted
            if count &+ 64 > room { grow() }
            while fresh != 0 {
                list[count] = page << 6 | UInt64(truncatingIfNeeded: fresh.trailingZeroBitCount)
                count &+= 1
                fresh &= fresh &- 1
            }
            line = end &+ 1
        } while line <= last
        return known != 0
    }

    /// Forgets the lines that were first marked when there were `kept`, newest first.
    mutating func truncate(to kept: Int) {
        invariant(kept >= 0, "a number of lines is not negative")
        invariant(kept <= count, "a list is cut to no more lines than it has")
        for index in kept..<count {
            let line = list[index]
            bitmap[Int(line >> 6)] &= ~(1 << (line & 63))
        }
        count = kept
    }

    /// Zeros behind the last number, up to a whole line of numbers.
    func padList() {
        for index in count..<((count + 7) & ~7) { list[index] = 0 }
    }

    /// Forgets all lines, and calls with each page that had some.
    @inline(__always)
    mutating func removeAll(_ body: (_ page: UInt64) -> Void) {
        for index in 0..<count {
            let page = list[index] >> 6
            if bitmap[Int(page)] == 0 { continue }
            bitmap[Int(page)] = 0
            body(page)
        }
        count = 0
    }

    /// Only a command that overflows the journal comes here, and it will be rolled back.
    @usableFromInline @inline(never)
    mutating func grow() {
        invariant(room <= lines + 64, "there are no more dirty lines than lines")
        let larger: UnsafeMutablePointer<UInt64> = zeroedMemory(room * 2)
        larger.update(from: list, count: count)
        free(list)
        list = larger
        room *= 2
    }
}

/// `count` zeroed elements; large ones are untouched pages of the kernel, so they cost only what is used of them.
func zeroedMemory<Element: BitwiseCopyable>(_ count: Int) -> UnsafeMutablePointer<Element> {
    invariant(count > 0, "what is allocated has elements")
    guard let memory = calloc(count, MemoryLayout<Element>.stride) else {
        halt("out of memory: \(count * MemoryLayout<Element>.stride) bytes")
    }
    return memory.assumingMemoryBound(to: Element.self)
}
