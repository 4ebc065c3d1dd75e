import MPaxosInvariants

/// First in, first out, in plain memory with one owner, as `Buffer`.
struct Queue<Element: BitwiseCopyable>: ~Copyable {
    private var buffer = Buffer<Element>(capacity: 16)
    private var head = 0

    var count: Int { buffer.count - head }
    var isEmpty: Bool { buffer.count == head }
    var first: Element? { isEmpty ? nil : buffer[head] }

    /// The first comes first.
    var elements: UnsafeMutableBufferPointer<Element> { UnsafeMutableBufferPointer(rebasing: buffer.elements[head...]) }

    mutating func append(_ element: Element) { buffer.append(element) }

    mutating func removeFirst() {
        invariant(!isEmpty, "what is removed is there")
        head += 1
        // What is taken away is moved out of the way when it is half of all.
        guard 2 * head >= buffer.count else { return }
        buffer.removeFirst(head)
        head = 0
    }

    /// Keeps the first `kept`.
    mutating func truncate(to kept: Int) { buffer.truncate(to: head + kept) }

    mutating func removeAll() {
        buffer.removeAll()
        head = 0
    }
}
