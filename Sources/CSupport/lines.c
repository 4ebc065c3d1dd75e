// Lines of 64 bytes on their way through a journal: gathered and summed, scattered, with stores that go around the
// caches.
#include "CSupport.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// The four sums of a line: each takes two of its words, so that the processor has four independent chains to work at.
static void sum_line_portable(uint32_t sums[4], const uint8_t *line) {
    for (int lane = 0; lane < 4; lane++) sums[lane] = ~csupport_crc32c_portable(~sums[lane], line + 16 * lane, 16);
}

#if defined(__x86_64__)

static inline uint64_t word(const void *line, int index) {
    uint64_t value;
    memcpy(&value, (const char *)line + 8 * index, sizeof value);
    return value;
}

#define SUM_LINE(line)                                                                          \
    a = __builtin_ia32_crc32di(__builtin_ia32_crc32di(a, word(line, 0)), word(line, 1));        \
    b = __builtin_ia32_crc32di(__builtin_ia32_crc32di(b, word(line, 2)), word(line, 3));        \
    c = __builtin_ia32_crc32di(__builtin_ia32_crc32di(c, word(line, 4)), word(line, 5));        \
    d = __builtin_ia32_crc32di(__builtin_ia32_crc32di(d, word(line, 6)), word(line, 7))
#define LOAD_SUMS uint64_t a = sums[0], b = sums[1], c = sums[2], d = sums[3]
#define STORE_SUMS sums[0] = (uint32_t)a, sums[1] = (uint32_t)b, sums[2] = (uint32_t)c, sums[3] = (uint32_t)d

#define STREAM_LINE_SSE2(to, from)                                                              \
    for (int part = 0; part < 4; part++)                                                        \
        _mm_stream_si128((__m128i *)(to) + part, _mm_loadu_si128((const __m128i *)(from) + part))
#define STREAM_LINE_AVX512(to, from) _mm512_stream_si512((__m512i *)(to), _mm512_loadu_si512(from))

#define STREAMS(suffix, features, stream_line)                                                  \
    __attribute__((target(features))) static void gather_##suffix(                              \
        char *to, const char *from, const uint64_t *lines, size_t count, uint32_t sums[4]) {    \
        LOAD_SUMS;                                                                              \
        for (size_t i = 0; i < count; i++, to += 64) {                                          \
            const char *line = from + lines[i] * 64;                                            \
            stream_line(to, line);                                                              \
            SUM_LINE(line);                                                                     \
        }                                                                                       \
        STORE_SUMS;                                                                             \
    }                                                                                           \
    __attribute__((target(features))) static void copy_##suffix(                                \
        char *to, const char *from, size_t count, uint32_t sums[4]) {                           \
        LOAD_SUMS;                                                                              \
        for (; count--; to += 64, from += 64) {                                                 \
            stream_line(to, from);                                                              \
            SUM_LINE(from);                                                                     \
        }                                                                                       \
        STORE_SUMS;                                                                             \
    }                                                                                           \
    __attribute__((target(features))) static void scatter_##suffix(                             \
        char *to, const char *from, const uint64_t *lines, size_t count) {                      \
        for (size_t i = 0; i < count; i++) stream_line(to + lines[i] * 64, from + lines[i] * 64); \
    }

STREAMS(sse42, "sse4.2", STREAM_LINE_SSE2)
STREAMS(avx512, "sse4.2,avx512f", STREAM_LINE_AVX512)

__attribute__((target("sse4.2"))) static void sum_sse42(uint32_t sums[4], const char *at, size_t count) {
    LOAD_SUMS;
    for (; count--; at += 64) { SUM_LINE(at); }
    STORE_SUMS;
}

int csupport_streams(void) { return __builtin_cpu_supports("sse4.2") != 0; }

// Streamed stores end in a fence of their own: libpmem's is empty on processors whose flush orders by itself, which
// streams do not.

void csupport_gather_lines(void *to, const void *from, const uint64_t *lines, size_t count, uint32_t sums[4]) {
    if (__builtin_cpu_supports("avx512f")) gather_avx512(to, from, lines, count, sums);
    else gather_sse42(to, from, lines, count, sums);
    _mm_sfence();
}

void csupport_copy_lines(void *to, const void *from, size_t count, uint32_t sums[4]) {
    if (__builtin_cpu_supports("avx512f")) copy_avx512(to, from, count, sums);
    else copy_sse42(to, from, count, sums);
    _mm_sfence();
}

void csupport_scatter_lines(void *to, const void *from, const uint64_t *lines, size_t count) {
    if (__builtin_cpu_supports("avx512f")) scatter_avx512(to, from, lines, count);
    else scatter_sse42(to, from, lines, count);
    _mm_sfence();
}

void csupport_sum_lines(const void *lines, size_t count, uint32_t sums[4]) {
    if (csupport_streams()) {
        sum_sse42(sums, lines, count);
        return;
    }
    for (const uint8_t *at = lines; count--; at += 64) sum_line_portable(sums, at);
}

#else

int csupport_streams(void) { return 0; }

void csupport_gather_lines(void *to, const void *from, const uint64_t *lines, size_t count, uint32_t sums[4]) {
    for (size_t i = 0; i < count; i++)
        csupport_copy_lines((char *)to + i * 64, (const char *)from + lines[i] * 64, 1, sums);
}

void csupport_copy_lines(void *to, const void *from, size_t count, uint32_t sums[4]) {
    memcpy(to, from, count * 64);
    csupport_sum_lines(from, count, sums);
}

void csupport_scatter_lines(void *to, const void *from, const uint64_t *lines, size_t count) {
    for (size_t i = 0; i < count; i++) memcpy((char *)to + lines[i] * 64, (const char *)from + lines[i] * 64, 64);
}

void csupport_sum_lines(const void *lines, size_t count, uint32_t sums[4]) {
    for (const uint8_t *at = lines; count--; at += 64)
        for (int lane = 0; lane < 4; lane++) sums[lane] = ~csupport_crc32c(~sums[lane], at + 16 * lane, 16);
}

#endif

void csupport_sum_lines_portable(const void *lines, size_t count, uint32_t sums[4]) {
    for (const uint8_t *at = lines; count--; at += 64) sum_line_portable(sums, at);
}
