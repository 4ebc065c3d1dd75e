// What Swift's Glibc module leaves out: epoll and accept4, both Linux's own, and the allocator's malloc_trim.
#pragma once
#include <malloc.h>
#include <sys/epoll.h>

struct sockaddr;
extern int accept4(int socket, struct sockaddr *address, unsigned *size, int flags);

/// The next connection, with SOCK_NONBLOCK and the like in `flags`; -1 and errno when there is none.
static inline int cepoll_accept(int socket, int flags) { return accept4(socket, 0, 0, flags); }
