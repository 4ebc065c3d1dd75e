import MPaxosCSupport

/// From here on the process also says what ends it when that is a signal: a check of Swift's own that failed, such as
/// an overflow, or a page of a pool that cannot be had. For programs, not for libraries: signals are the process's.
public func tellOfFaults() { csupport_tell_of_faults() }
