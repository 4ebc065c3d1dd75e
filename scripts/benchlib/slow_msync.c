/* A library to preload: each msync takes longer, by what SLOW_MSYNC_MS says in milliseconds. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

int msync(void *start, size_t length, int flags) {
    static int (*real)(void *, size_t, int);
    if (!real) real = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    const char *asked = getenv("SLOW_MSYNC_MS");
    long milliseconds = asked ? atol(asked) : 0;
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
    return real(start, length, flags);
}
