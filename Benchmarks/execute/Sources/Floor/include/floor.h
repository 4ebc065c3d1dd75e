#ifndef FLOOR_H
#define FLOOR_H
#include <stddef.h>
#include <stdint.h>

struct floor_table;

/// A flat table of `keys` values of `size` bytes in a file. NULL on failure, which is told on stderr.
struct floor_table *floor_open(const char *path, uint64_t keys, size_t size);
/// Executes a batch of `count` PUTs: `stride` bytes apart, each a key of 8 bytes and its value `value_offset` bytes
/// further.
void floor_batch(struct floor_table *table, const char *batch, int count, size_t stride, size_t value_offset);
void floor_close(struct floor_table *table);
#endif
