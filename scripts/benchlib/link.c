/* Links between TUN devices, for kernels without netem: what a device sends passes a link of its own, which has a rate,
   a bounded queue, a delay and loss, and comes out of the device that has the packet's address.

   usage: link RATE QUEUE DELAY JITTER LOSS COUNTERS (NAMESPACE ADDRESS)...

   RATE is in bits a second, 0 for no limit; QUEUE in bytes; DELAY and JITTER in microseconds, one way; LOSS a share, 0
   to 1. A device `peer0` is made in each NAMESPACE (a file), and "ready" is printed when all are there. COUNTERS is a
   file that holds a `struct counters` for each of them, and is kept up to date.

   Packets come as the kernel's TCP makes them, of up to 64 KiB and without checksums, where neither loss nor a low rate
   asks for single ones: so a gigabit a second takes little processor time. The time on the link, and what is counted,
   is that of the segments with their headers. A packet that is lost has taken its time on the link; one that finds the
   queue full takes none. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { LINKS = 9, ETHERNET = 14, LARGEST = sizeof(struct virtio_net_hdr) + 65535, TURN = 64 };

struct counters { uint64_t bytes, packets, dropped, lost; };

struct packet {
    struct packet *next;
    uint64_t due;
    struct link *to;
    size_t length;
    char bytes[];
};

struct link {
    int device;
    in_addr_t address;
    uint64_t free_at; /* when the link has sent what it has taken */
    uint64_t last_due;
    struct packet *first, **end; /* under way, in the order in which they come out */
    struct counters *counters;
};

static struct link links[LINKS];
static int count;
static double rate, queue, loss;
static uint64_t delay, jitter;

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int device_in(const char *namespace, int offload) {
    int file = open(namespace, O_RDONLY | O_CLOEXEC);
    if (file < 0 || setns(file, CLONE_NEWNET) != 0) fail(namespace);
    close(file);
    struct ifreq request = {.ifr_name = "peer0", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0 || ioctl(device, TUNSETIFF, &request) != 0) fail("/dev/net/tun");
    if (ioctl(device, TUNSETOFFLOAD, offload ? TUN_F_CSUM | TUN_F_TSO4 : 0) != 0) fail("TUNSETOFFLOAD");
    return device;
}

/* Bytes and packets that the segments of what the kernel sent in one take on an Ethernet. */
static uint64_t on_the_wire(const struct virtio_net_hdr *header, size_t length, uint64_t *packets) {
    *packets = 1;
    if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE && length > header->hdr_len) {
        *packets = (length - header->hdr_len + header->gso_size - 1) / header->gso_size;
        length += (*packets - 1) * header->hdr_len;
    }
    return length + *packets * ETHERNET;
}

static void take(struct link *link, const char *bytes, size_t length, uint64_t now) {
    const struct virtio_net_hdr *header = (const void *)bytes;
    const unsigned char *ip = (const void *)(header + 1);
    if (length < sizeof *header + 20 || ip[0] >> 4 != 4) return;
    struct link *to = NULL;
    for (int i = 0; i < count; i++)
        if (memcmp(ip + 16, &links[i].address, 4) == 0) to = &links[i];
    if (!to) return;

    uint64_t packets, wire = on_the_wire(header, length - sizeof *header, &packets);
    if (link->free_at < now) link->free_at = now;
    if (rate > 0) {
        if ((link->free_at - now) * rate / 8e9 > queue) {
            link->counters->dropped += packets;
            return;
        }
        link->free_at += wire * 8e9 / rate;
    }
    link->counters->bytes += wire;
    link->counters->packets += packets;
    if (loss > 0 && drand48() < loss) {
        link->counters->lost += packets;
        return;
    }
    struct packet *packet = malloc(sizeof *packet + length);
    if (!packet) fail("no memory for a packet");
    packet->next = NULL;
    packet->due = link->free_at + delay + (uint64_t)(drand48() * jitter);
    /* Jitter delays, and does not reorder. */
    if (packet->due < link->last_due) packet->due = link->last_due;
    link->last_due = packet->due;
    packet->to = to;
    packet->length = length;
    memcpy(packet->bytes, bytes, length);
    *link->end = packet;
    link->end = &packet->next;
}

/* Lets out what is due by now, and returns when the next is. */
static uint64_t give(struct link *link, uint64_t now) {
    while (link->first && link->first->due <= now) {
        struct packet *packet = link->first;
        ssize_t written = write(packet->to->device, packet->bytes, packet->length);
        if (written < 0 && errno != EIO && errno != EAGAIN) fail("write");
        link->first = packet->next;
        if (!link->first) link->end = &link->first;
        free(packet);
    }
    return link->first ? link->first->due : UINT64_MAX;
}

int main(int argc, char **argv) {
    if (argc < 9 || argc % 2 == 0 || (count = (argc - 7) / 2) > LINKS) {
        fprintf(stderr, "usage: link RATE QUEUE DELAY JITTER LOSS COUNTERS (NAMESPACE ADDRESS)...\n");
        return 2;
    }
    rate = atof(argv[1]);
    queue = atof(argv[2]);
    delay = atof(argv[3]) * 1000;
    jitter = atof(argv[4]) * 1000;
    loss = atof(argv[5]);
    int file = open(argv[6], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, count * sizeof(struct counters)) != 0) fail(argv[6]);
    struct counters *counters = mmap(NULL, count * sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counters == MAP_FAILED) fail(argv[6]);

    struct pollfd polls[LINKS];
    int offload = loss == 0 && (rate == 0 || rate >= 100e6);
    for (int i = 0; i < count; i++) {
        links[i] = (struct link){
            .device = device_in(argv[7 + 2 * i], offload),
            .address = inet_addr(argv[8 + 2 * i]),
            .counters = &counters[i],
        };
        links[i].end = &links[i].first;
        polls[i] = (struct pollfd){.fd = links[i].device, .events = POLLIN};
    }
    prctl(PR_SET_TIMERSLACK, 1);
    puts("ready");
    fflush(stdout);

    static char bytes[LARGEST];
    for (;;) {
        uint64_t next = UINT64_MAX, now = now_ns();
        for (int i = 0; i < count; i++) {
            uint64_t due = give(&links[i], now);
            if (due < next) next = due;
        }
        now = now_ns();
        uint64_t pause = next > now ? next - now : 0;
        struct timespec wait = {pause / 1000000000, pause % 1000000000};
        if (ppoll(polls, count, next == UINT64_MAX ? NULL : &wait, NULL) < 0 && errno != EINTR) fail("ppoll");
        for (int i = 0; i < count; i++) {
            ssize_t length = 0;
            for (int turn = 0; turn < TURN && polls[i].revents; turn++) {
                if ((length = read(links[i].device, bytes, sizeof bytes)) < 0) break;
                take(&links[i], bytes, length, now_ns());
            }
            if (length < 0 && errno != EAGAIN && errno != EBADFD) fail("read");
        }
    }
}
