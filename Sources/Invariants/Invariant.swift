import MPaxosCSupport

/// Stops the process unless `condition` holds, in every build: what comes after relies on it, and what is written down
/// is persistent. For what only a fault of the program can bring about; what a peer, a client, a file or an operator
/// can cause is refused, never asserted.
///
/// It says `rule` on standard error, where it was broken, and by which replica in which view, at which instance and
/// position. A rule that holds costs a comparison and a branch that is not taken: it makes no text.
///
/// - Parameter rule: what holds, such as "a decided entry stays as it is"; not what went wrong.
@_transparent
public func invariant(
    _ condition: @autoclosure () -> Bool, _ rule: StaticString, file: StaticString = #fileID, line: UInt32 = #line
) {
    if _slowPath(!condition()) { breach(rule.utf8Start, file.utf8Start, line) }
}

/// As an invariant that does not hold: control never comes here as long as `rule` does.
@_transparent
public func broken(_ rule: StaticString, file: StaticString = #fileID, line: UInt32 = #line) -> Never {
    breach(rule.utf8Start, file.utf8Start, line)
}

/// Stops the process as an invariant does, but for what its surroundings did to it: no memory, a disk that fails.
///
/// - Parameter reason: what happened, and what to do about it.
@inline(never)
public func halt(_ reason: String) -> Never {
    reason.withCString { csupport_last_words("stopped", $0, nil, 0) }
}

/// Pointers, and not strings: they fit the registers, and the place of the call stays small. Literals end with a zero.
@usableFromInline @inline(never)
func breach(_ rule: UnsafePointer<UInt8>, _ file: UnsafePointer<UInt8>, _ line: UInt32) -> Never {
    csupport_last_words("broken invariant", rule, file, line)
}
