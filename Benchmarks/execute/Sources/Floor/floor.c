// What Benchmarks/floor executes: copy and flush each value, one fence a batch and a counter.
#include "floor.h"

#include <libpmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct floor_table {
    char *map;
    size_t mapped, size, stride;
    uint64_t keys, *applied;
};

struct floor_table *floor_open(const char *path, uint64_t keys, size_t size) {
    struct floor_table *table = calloc(1, sizeof *table);
    table->size = size;
    table->stride = size + 32;  // hash, lengths, and a key of 16 bytes
    table->keys = keys;
    int is_pmem;
    table->map = pmem_map_file(path, 4096 + keys * table->stride, PMEM_FILE_CREATE, 0600, &table->mapped, &is_pmem);
    if (!table->map) {
        fprintf(stderr, "%s: %s\n", path, pmem_errormsg());
        free(table);
        return NULL;
    }
    table->applied = (uint64_t *)table->map;
    memset(table->map + 4096, 1, keys * table->stride);
    pmem_persist(table->map, table->mapped);
    return table;
}

void floor_batch(struct floor_table *table, const char *batch, int count, size_t stride, size_t value_offset) {
    for (int i = 0; i < count; i++, batch += stride) {
        uint64_t key;
        memcpy(&key, batch, 8);
        char *value = table->map + 4096 + key % table->keys * table->stride + 32;
        memcpy(value, batch + value_offset, table->size);
        pmem_flush(value, table->size);
    }
    pmem_drain();
    ++*table->applied;
    pmem_persist(table->applied, 8);
}

void floor_close(struct floor_table *table) {
    pmem_unmap(table->map, table->mapped);
    free(table);
}
