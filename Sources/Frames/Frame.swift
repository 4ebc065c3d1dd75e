import MPaxosCZeroMQ
import MPaxosInvariants

/// One message frame, over a zmq_msg_t that is allocated once and used again and again: its address, and with it the
/// data pointer of short messages (up to 33 bytes live inside zmq_msg_t), stays put.
///
/// Not thread-safe; may be handed from thread to thread. Methods that change the content are non-mutating, since only
/// the memory behind changes: a stage keeps its frames in `let` properties and pays for no exclusivity checks.
///
/// Public only since open classes take it in their methods.
public struct Frame: ~Copyable, @unchecked Sendable {
    @usableFromInline package let message: UnsafeMutablePointer<zmq_msg_t>

    /// An empty frame.
    package init() {
        message = .allocate(capacity: 1)
        zmq_msg_init(message)
    }

    /// A frame of `size` bytes of undefined content.
    package init(size: Int) {
        self.init()
        rebuild(size: size)
    }

    /// A frame with a copy of `bytes`.
    package init(copying bytes: UnsafeRawBufferPointer) {
        self.init()
        rebuild(copying: bytes)
    }

    deinit {
        zmq_msg_close(message)
        message.deallocate()
    }

    /// The content. Valid until the frame is rebuilt, received into, sent, taken, or let go.
    @inlinable
    package var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: zmq_msg_data(message), count: zmq_msg_size(message))
    }

    /// Bytes of content.
    @inlinable
    package var count: Int { zmq_msg_size(message) }

    /// Whether the frame was received with further frames of the same message to follow.
    @inlinable
    package var hasMore: Bool { zmq_msg_more(message) != 0 }

    /// The file descriptor of the connection that the frame was received over; nil where it came over none. The
    /// connection may have ended since.
    package var sourceFile: Int32? {
        let file = zmq_msg_get(message, ZMQ_SRCFD)
        return file < 0 ? nil : file
    }

    /// Lets the content go; the frame is empty.
    package func clear() {
        zmq_msg_close(message)
        zmq_msg_init(message)
    }

    /// New content of `size` bytes, undefined: fill them through `bytes`. Above 33 bytes libzmq allocates.
    package func rebuild(size: Int) {
        invariant(size >= 0, "a frame's size is not negative")
        zmq_msg_close(message)
        if zmq_msg_init_size(message, size) != 0 { halt("out of memory for a message of \(size) bytes") }
    }

    /// New content: a copy of `source`, which must not be this frame's own.
    package func rebuild(copying source: UnsafeRawBufferPointer) {
        rebuild(size: source.count)
        if let start = source.baseAddress, source.count > 0 {
            zmq_msg_data(message).copyMemory(from: start, byteCount: source.count)
        }
    }

    /// Takes a reference to `other`'s content, which both then share; neither may be written to. No copy above 33
    /// bytes.
    package func share(from other: borrowing Frame) {
        invariant(zmq_msg_copy(message, other.message) == 0, "a frame that is shared is valid")
    }

    /// Moves the content out into a value that fits a ring's slot; the frame becomes empty. Whoever holds the value
    /// adopts or discards it.
    package func take() -> RawFrame {
        let raw = UnsafeRawPointer(message).loadUnaligned(as: RawFrame.self)
        zmq_msg_init(message)
        return raw
    }

    /// Moves the content of `raw` here; what was here is let go. The value is used up: adopting it twice is a double
    /// free.
    package func adopt(_ raw: RawFrame) {
        zmq_msg_close(message)
        UnsafeMutableRawPointer(message).storeBytes(of: raw, as: RawFrame.self)
    }
}

/// The 64 bytes of a zmq_msg_t on their way through a ring: an owned message that the compiler does not watch over. Use
/// it exactly once: `Frame.adopt` or `discard`.
///
/// libzmq itself moves messages by copying these bytes (zmq_msg_move), so their place is free.
@usableFromInline
package struct RawFrame: BitwiseCopyable, Sendable {
    @usableFromInline var words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)

    /// An empty message: needs no discarding, but may be.
    package init() {
        var message = zmq_msg_t()
        zmq_msg_init(&message)
        self = withUnsafeBytes(of: &message) { $0.loadUnaligned(as: RawFrame.self) }
    }

    /// Releases the message.
    package func discard() {
        var copy = self
        let result = withUnsafeMutableBytes(of: &copy) {
            // The same 64 bytes; libzmq reads them as its own type, Swift only ever copies them whole.
            zmq_msg_close($0.baseAddress!.assumingMemoryBound(to: zmq_msg_t.self))
        }
        invariant(result == 0, "a message that is discarded is valid")
    }
}
