// CRC32C. The crc32 instruction has a latency of 3 cycles and a throughput of 1: three independent streams keep it
// busy. Their results are joined by multiplying with x^(8 * length) in GF(2), done by table look-up for two fixed
// lengths (after Mark Adler's method; Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32
// Instruction", Intel 2011).
#include "CSupport.h"

#include <string.h>

#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#define POLYNOMIAL 0x82F63B78u
#define LONG_STREAM 1024  // bytes of each of the three streams
#define SHORT_STREAM 128

// byte_table[k][b]: the CRC register after byte b followed by k zero bytes ("slicing by 8").
static uint32_t byte_table[8][256];
// shift_table[b][v]: what byte b of the register, of value v, becomes when the stream's length in zero bytes is
// appended.
static uint32_t long_shift[4][256];
static uint32_t short_shift[4][256];

static uint32_t append_zeros(uint32_t crc, size_t count) {
    while (count--) crc = (crc >> 8) ^ byte_table[0][crc & 0xFF];
    return crc;
}

static void fill_shift(uint32_t table[4][256], size_t length) {
    // Appending zeros is linear: 32 basis vectors give every other value by XOR.
    for (int byte = 0; byte < 4; byte++) {
        table[byte][0] = 0;
        for (int bit = 0; bit < 8; bit++) {
            uint32_t basis = append_zeros(1u << (8 * byte + bit), length);
            for (int low = 0; low < 1 << bit; low++) table[byte][(1 << bit) + low] = table[byte][low] ^ basis;
        }
    }
}

// Before main and before any thread of ours: no locking is needed.
__attribute__((constructor)) static void fill_tables(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int k = 0; k < 8; k++) crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
        byte_table[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++)
            byte_table[k][b] = (byte_table[k - 1][b] >> 8) ^ byte_table[0][byte_table[k - 1][b] & 0xFF];
    fill_shift(long_shift, LONG_STREAM);
    fill_shift(short_shift, SHORT_STREAM);
}

static inline uint64_t load64(const uint8_t *p) {
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

uint32_t csupport_crc32c_portable(uint32_t seed, const void *bytes, size_t count) {
    const uint8_t *p = bytes;
    uint32_t crc = ~seed;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    while (count >= 8) {
        uint64_t word = load64(p) ^ crc;
        crc = byte_table[7][word & 0xFF] ^ byte_table[6][(word >> 8) & 0xFF] ^ byte_table[5][(word >> 16) & 0xFF]
            ^ byte_table[4][(word >> 24) & 0xFF] ^ byte_table[3][(word >> 32) & 0xFF]
            ^ byte_table[2][(word >> 40) & 0xFF] ^ byte_table[1][(word >> 48) & 0xFF] ^ byte_table[0][word >> 56];
        p += 8;
        count -= 8;
    }
#endif
    while (count--) crc = (crc >> 8) ^ byte_table[0][(crc ^ *p++) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__)

static inline uint32_t shift(uint32_t table[4][256], uint32_t crc) {
    return table[0][crc & 0xFF] ^ table[1][(crc >> 8) & 0xFF] ^ table[2][(crc >> 16) & 0xFF] ^ table[3][crc >> 24];
}

// One block of three adjacent streams of `stream` bytes each.
#define THREE_STREAMS(stream, table)                                                     \
    while (count >= 3 * (stream)) {                                                      \
        uint64_t second = 0, third = 0;                                                  \
        const uint8_t *end = p + (stream);                                               \
        do {                                                                             \
            crc = __builtin_ia32_crc32di(crc, load64(p));                                \
            second = __builtin_ia32_crc32di(second, load64(p + (stream)));               \
            third = __builtin_ia32_crc32di(third, load64(p + 2 * (stream)));             \
            p += 8;                                                                      \
        } while (p < end);                                                               \
        crc = shift(table, (uint32_t)crc) ^ second;                                      \
        crc = shift(table, (uint32_t)crc) ^ third;                                       \
        p += 2 * (stream);                                                               \
        count -= 3 * (stream);                                                           \
    }

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t seed, const void *bytes, size_t count) {
    const uint8_t *p = bytes;
    uint64_t crc = (uint32_t)~seed;
    THREE_STREAMS(LONG_STREAM, long_shift)
    THREE_STREAMS(SHORT_STREAM, short_shift)
    while (count >= 8) {
        crc = __builtin_ia32_crc32di(crc, load64(p));
        p += 8;
        count -= 8;
    }
    // What a line has before its own sum.
    if (count >= 4) {
        uint32_t word;
        memcpy(&word, p, sizeof word);
        crc = __builtin_ia32_crc32si((uint32_t)crc, word);
        p += 4;
        count -= 4;
    }
    while (count--) crc = __builtin_ia32_crc32qi((uint32_t)crc, *p++);
    return ~(uint32_t)crc;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_word_sse42(uint64_t word) {
    return ~(uint32_t)__builtin_ia32_crc32di(~0u, word);
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

static uint32_t crc32c_armv8(uint32_t seed, const void *bytes, size_t count) {
    const uint8_t *p = bytes;
    uint32_t crc = ~seed;
    while (count >= 8) {
        crc = __crc32cd(crc, load64(p));
        p += 8;
        count -= 8;
    }
    while (count--) crc = __crc32cb(crc, *p++);
    return ~crc;
}

#endif

uint32_t csupport_crc32c_word(uint64_t word) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return crc32c_word_sse42(word);
#endif
    return csupport_crc32c(0, &word, sizeof word);
}

uint32_t csupport_crc32c(uint32_t seed, const void *bytes, size_t count) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42(seed, bytes, count);  // a load and a test
    return csupport_crc32c_portable(seed, bytes, count);
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
    return crc32c_armv8(seed, bytes, count);
#else
    return csupport_crc32c_portable(seed, bytes, count);
#endif
}
