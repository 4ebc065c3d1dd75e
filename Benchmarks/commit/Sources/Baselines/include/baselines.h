// The two ways not taken to commit a batch of updates: undo.
#pragma once
#include <stddef.h>
#include <stdint.h>

/// `keys` values of 128 bytes in a new libpmemobj pool. NULL with a message on failure.
void *baseline_open(const char *path, size_t keys);
void baseline_close(void *baseline);
/// Both update values chosen by the same xorshift sequence, `batch` of them a commit, and return nanoseconds an update.
/// One libpmemobj transaction a batch, pmemobj_tx_add_range for each value.
double baseline_transaction(void *baseline, size_t batches, size_t batch);
/// An undo log of one's own: save the old value, flush, fence; store the new one, flush; fence and truncate once a
/// batch.
double baseline_undo_log(void *baseline, size_t batches, size_t batch);
