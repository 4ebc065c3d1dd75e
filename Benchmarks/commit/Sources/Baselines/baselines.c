#include "baselines.h"
#include <libpmem.h>
#include <libpmemobj.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct { char bytes[128]; } value;
typedef struct { uint64_t key, valid; char padding[48]; value old; } undo;
typedef struct { PMEMobjpool *pool; value *values; undo *log; uint64_t *count; size_t keys; } baseline;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static uint64_t step(uint64_t *s) { *s ^= *s << 13; *s ^= *s >> 7; *s ^= *s << 17; return *s; }

static void *aligned(PMEMobjpool *pool, size_t size) {
    PMEMoid id;
    if (pmemobj_zalloc(pool, &id, size + 64, 1)) { fprintf(stderr, "%s\n", pmemobj_errormsg()); exit(1); }
    return (void *)(((uintptr_t)pmemobj_direct(id) + 63) & ~(uintptr_t)63);
}

void *baseline_open(const char *path, size_t keys) {
    baseline *b = calloc(1, sizeof *b);
    b->pool = pmemobj_create(path, "baseline", 64u << 20, 0600);
    if (!b->pool) { fprintf(stderr, "%s: %s\n", path, pmemobj_errormsg()); return NULL; }
    b->keys = keys;
    b->values = aligned(b->pool, keys * sizeof(value));
    b->log = aligned(b->pool, 4096 * sizeof(undo));
    b->count = aligned(b->pool, 64);
    return b;
}

void baseline_close(void *p) {
    baseline *b = p;
    pmemobj_close(b->pool);
    free(b);
}

double baseline_transaction(void *p, size_t batches, size_t batch) {
    baseline *b = p;
    uint64_t s = 88172645463325252u;
    value v;
    uint64_t start = now();
    for (size_t i = 0; i < batches; i++) {
        TX_BEGIN(b->pool) {
            for (size_t j = 0; j < batch; j++) {
                uint64_t r = step(&s);
                memset(&v, (int)r, sizeof v);
                value *at = &b->values[r % b->keys];
                pmemobj_tx_add_range_direct(at, sizeof v);
                *at = v;
            }
        } TX_END
    }
    return (double)(now() - start) / (double)(batches * batch);
}

double baseline_undo_log(void *p, size_t batches, size_t batch) {
    baseline *b = p;
    uint64_t s = 88172645463325252u;
    value v;
    if (batch > 4096) exit(1);
    uint64_t start = now();
    for (size_t i = 0; i < batches; i++) {
        for (size_t j = 0; j < batch; j++) {
            uint64_t r = step(&s);
            memset(&v, (int)r, sizeof v);
            value *at = &b->values[r % b->keys];
            undo *u = &b->log[j];
            u->key = r % b->keys;
            u->valid = i + 1;
            u->old = *at;
            pmem_flush(u, sizeof *u);
            pmem_drain();
            *at = v;
            pmem_flush(at, sizeof v);
        }
        pmem_drain();
        *b->count = i + 1;
        pmem_flush(b->count, 8);
        pmem_drain();
    }
    return (double)(now() - start) / (double)(batches * batch);
}
