// libpmemobj and libpmem for Swift, and the few system calls that Glibc's module does not show.
#ifndef CPERSISTENTMEMORY_SHIM_H
#define CPERSISTENTMEMORY_SHIM_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <libpmem.h>
#include <libpmemobj.h>

/// 1 when the file lies on tmpfs, 0 when not, -1 with errno on failure.
static inline int cpm_is_tmpfs(int fd) {
    struct statfs s;
    if (fstatfs(fd, &s) != 0) return -1;
    return s.f_type == 0x01021994 /* TMPFS_MAGIC */;
}

/// An unnamed file in memory (memfd_create is behind _GNU_SOURCE).
static inline int cpm_memory_file(const char *name) {
    return (int)syscall(SYS_memfd_create, name, 1u /* MFD_CLOEXEC */);
}

/// pmemobj_direct is a macro or a thread-local look-up by compiler; an offset from the pool's base is the same thing.
static inline void *cpm_direct(PMEMobjpool *pool, uint64_t offset) {
    return (char *)pool + offset;
}

#endif
