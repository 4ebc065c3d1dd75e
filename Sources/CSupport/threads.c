// eventfd, connections, affinity and clocks.
#define _GNU_SOURCE
#include "CSupport.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int csupport_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

void csupport_eventfd_signal(int fd) {
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {}
}

void csupport_eventfd_clear(int fd) {
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR) {}
}

/// 0 where the descriptor is none of TCP.
static int read_tcp_info(int fd, struct tcp_info *info) {
    socklen_t size = sizeof *info;
    memset(info, 0, sizeof *info);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0;
}

uint64_t csupport_tcp_received(int fd) {
    struct tcp_info info;
    return read_tcp_info(fd, &info) ? info.tcpi_bytes_received : 0;
}

uint64_t csupport_tcp_acknowledged(int fd) {
    struct tcp_info info;
    return read_tcp_info(fd, &info) ? info.tcpi_bytes_acked : UINT64_MAX;
}

uint32_t csupport_tcp_silence_ms(int fd) {
    struct tcp_info info;
    return read_tcp_info(fd, &info) ? info.tcpi_last_data_recv : 0;
}

int csupport_pin_thread(int core) {
    if (core < 0 || core >= CPU_SETSIZE) return EINVAL;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

int csupport_usable_cores(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (pthread_getaffinity_np(pthread_self(), sizeof set, &set) != 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);  // more cores than a cpu_set_t holds
        return online > 0 ? (int)online : 1;
    }
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}

int csupport_name_thread(const char *name) {
    char shortened[16];
    strncpy(shortened, name, sizeof shortened - 1);
    shortened[sizeof shortened - 1] = 0;
    return pthread_setname_np(pthread_self(), shortened);
}

static uint64_t now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t csupport_process_cpu_ns(void) { return now(CLOCK_PROCESS_CPUTIME_ID); }
uint64_t csupport_monotonic_us(void) { return now(CLOCK_MONOTONIC) / 1000; }
