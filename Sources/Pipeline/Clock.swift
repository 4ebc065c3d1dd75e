/// Where a stage reads the time in the middle of a turn: what takes long is cut short by it.
///
/// The pipeline has no clock of its own. Who assembles it says what time it is: the node by the machine's monotonic
/// clock, the simulator by its own. A function without a closure, so that reading the time counts no references.
package struct Clock: @unchecked Sendable {
    // Unchecked: what `context` points to is the business of `read`, which any thread may call.
    private let context: UnsafeMutableRawPointer?
    private let read: @convention(c) (UnsafeMutableRawPointer?) -> UInt64

    /// - Parameters:
    ///   - context: handed to `read`; it outlives the clock.
    ///   - read: microseconds of a clock that never goes back. Any thread.
    package init(
        context: UnsafeMutableRawPointer? = nil, _ read: @escaping @convention(c) (UnsafeMutableRawPointer?) -> UInt64
    ) {
        self.context = context
        self.read = read
    }

    /// Microseconds.
    package var now: UInt64 { read(context) }
}
