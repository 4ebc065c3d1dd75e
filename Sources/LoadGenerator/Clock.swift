import Glibc

/// Nanoseconds of the monotonic clock.
enum MonotonicClock {
    static func now() -> UInt64 {
        nanoseconds(of: CLOCK_MONOTONIC) ?? 0
    }

    /// Nil when there is no such clock: that of a process that is gone.
    static func nanoseconds(of clock: clockid_t) -> UInt64? {
        var time = timespec()
        guard clock_gettime(clock, &time) == 0 else { return nil }
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// CPU time of processes on this host.
enum ProcessorTime {
    /// Nanoseconds that this process has used.
    static func own() -> UInt64 {
        MonotonicClock.nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID) ?? 0
    }

    /// Nanoseconds that a process has used; nil when it is not there.
    static func of(_ process: Int32) -> UInt64? {
        var clock = clockid_t()
        guard process > 0, clock_getcpuclockid(process, &clock) == 0 else { return nil }
        return MonotonicClock.nanoseconds(of: clock)
    }
}

/// Processors of this host.
func processorCount() -> Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }
