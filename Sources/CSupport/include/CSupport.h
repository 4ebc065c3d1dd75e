// Small things of the machine and the kernel that Swift cannot say: CRC32C, streamed lines, the spin-wait hint,
// eventfd, affinity, clocks, last words.
#ifndef CSUPPORT_H
#define CSUPPORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// CRC32C (Castagnoli, reflected 0x82F63B78; RFC 3720's check of "123456789" is 0xE3069283) of `count` bytes,
/// continuing from `seed`: 0 to begin, or the CRC of what goes before: crc(crc(0, a), b) == crc(0, a + b). Any
/// alignment. `bytes` may be NULL when `count` is 0. Uses SSE4.2 where the processor has it, the ARMv8 CRC instructions
/// where the compiler may assume them, tables elsewhere.
uint32_t csupport_crc32c(uint32_t seed, const void *bytes, size_t count);

/// The CRC32C of a word's bytes as they lie in memory, from a seed of 0.
uint32_t csupport_crc32c_word(uint64_t word);

/// As `csupport_crc32c` by tables alone, on any processor: the yardstick that the tests hold the fast one to.
uint32_t csupport_crc32c_portable(uint32_t seed, const void *bytes, size_t count);

/// Four sums over lines of 64 bytes: sum k is the CRC32C register, not inverted, after words 2k and 2k + 1 of each
/// line. Four, as the processor computes them at once in the time of one. `sums` continue.
void csupport_sum_lines(const void *lines, size_t count, uint32_t sums[4]);
/// The same by tables alone: the yardstick.
void csupport_sum_lines_portable(const void *lines, size_t count, uint32_t sums[4]);
/// Whether the three below store around the caches, so that no flush is needed after them, only a fence. Else they are
/// plain copies.
int csupport_streams(void);
/// Copies and sums `count` lines that follow each other. All pointers to lines are aligned to 64, but `from`.
void csupport_copy_lines(void *to, const void *from, size_t count, uint32_t sums[4]);
/// Copies and sums the lines that `lines` numbers, counted from `from`, one after the other to `to`.
void csupport_gather_lines(void *to, const void *from, const uint64_t *lines, size_t count, uint32_t sums[4]);
/// Copies the lines that `lines` numbers, counted from `from`, to the places of the same numbers from `to`.
void csupport_scatter_lines(void *to, const void *from, const uint64_t *lines, size_t count);

/// Tells the processor that this is a spin-wait.
static inline void csupport_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/// Stores 64 bytes, the first 8 of them before the others. Both pointers are aligned to 8.
static inline void csupport_store_line(void *to, const void *from) {
    __atomic_store_n((uint64_t *)to, *(const uint64_t *)from, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __builtin_memcpy((char *)to + 8, (const char *)from + 8, 56);
}

/// Stores zeros to 64 bytes, to the first 8 of them after the others.
static inline void csupport_clear_line(void *to) {
    __builtin_memset((char *)to + 8, 0, 56);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n((uint64_t *)to, 0, __ATOMIC_RELAXED);
}

/// Begins to fetch the cache line of `address`, which will be written to, and does not wait for it. Any address will
/// do.
static inline void csupport_prefetch(const void *address) { __builtin_prefetch(address, 1, 3); }

/// A new non-blocking, close-on-exec eventfd, or -1 with errno.
int csupport_eventfd(void);
/// Makes the eventfd readable. Retries EINTR; a counter at its limit is readable already.
void csupport_eventfd_signal(int fd);
/// Makes the eventfd unreadable. Never blocks.
void csupport_eventfd_clear(int fd);

/// Bytes that have come over a TCP connection so far, read or not (tcp(7), TCP_INFO); 0 for any other descriptor.
uint64_t csupport_tcp_received(int fd);
/// Bytes sent over a TCP connection that the other side has acknowledged; all ones where the descriptor is none of TCP.
uint64_t csupport_tcp_acknowledged(int fd);
/// Milliseconds since something was last received over a TCP connection; 0 where the descriptor is none of TCP.
uint32_t csupport_tcp_silence_ms(int fd);

/// Binds the calling thread to one core. 0 or an errno.
int csupport_pin_thread(int core);
/// Cores that the calling thread may run on (its affinity mask), at least 1.
int csupport_usable_cores(void);
/// Names the calling thread for top, gdb and perf: the first 15 bytes count. 0 or an errno.
int csupport_name_thread(const char *name);
/// Processor time of the whole process, nanoseconds.
uint64_t csupport_process_cpu_ns(void);
/// CLOCK_MONOTONIC, microseconds.
uint64_t csupport_monotonic_us(void);

/// Who a thread works for, and the words in which that one says where it stands, which their owner keeps up to date
/// anyway. All but `number` may be NULL: not known.
struct csupport_standing {
    /// "replica", say.
    const char *who;
    uint64_t number;
    const uint64_t *view, *decided, *executed, *position;
};

/// The calling thread works for `standing` from now on. Its words must last until another takes its place. Returns the
/// one before.
struct csupport_standing csupport_stand(struct csupport_standing standing);

/// So many more log lines wait to be written by a thread of this process, or fewer. Last words wait for them, a second
/// at most: what went before explains them.
void csupport_lines_waiting(long change);

/// Writes one line to standard error, unless its reader takes longer than a second: what happened and why, where in the
/// source (a `file` of NULL: not known), and where
/// the one stands that the thread works for. Then aborts. Allocates nothing.
__attribute__((noreturn, cold, noinline))
void csupport_last_words(const char *what, const char *why, const char *file, uint32_t line);

/// From here on such a line is also written when a signal is about to end the process that stands for a fault: SIGILL
/// and SIGTRAP, by which Swift stops at an overflow, SIGSEGV, SIGBUS. Once in a process.
void csupport_tell_of_faults(void);

#ifdef __cplusplus
}
#endif
#endif
