// Load on a Redis, ZooKeeper or etcd: lock-step connections that put values, as `mpaxos bench` does it on this system.
//
//   load redis|zookeeper|etcd HOST:PORT[,HOST:PORT...] [n=connections] [V=value size] [K=keys] [secs=] [warm=]
//        [pids=P,P,...]
//
// redis: SET, then WAIT for one replica. zookeeper: setData; the nodes are created first. etcd: put, as gRPC
// over HTTP/2. Prints one JSON object; CPU of the processes `pids` and of this one, per request.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define INPUT (1 << 16)
#define OUTPUT (1 << 20)
#define LATENCIES (1 << 23)

typedef struct {
    int fd;
    uint32_t stream;     // etcd: of the outstanding request
    int replied;         // etcd: its answer has come, its end has not
    size_t unannounced;  // etcd: bytes received since the peer's window was last opened
    uint64_t sent;       // when the outstanding request was sent
    size_t have;         // bytes of `input`
    uint8_t input[INPUT];
} connection;

// What a protocol is made of. `request` writes one to a key into `out`. `reply` looks at what has come: bytes that it
// is done with, and in `done` whether a request was answered: 1 well, -1 otherwise. It may answer the peer's own
// frames.
typedef struct {
    const char *name;
    void (*open)(connection *);
    size_t (*request)(connection *, uint8_t *out, unsigned key);
    size_t (*reply)(connection *, int *done);
    void (*fill)(connection *);
} protocol;

static int n = 100, V = 128, K = 10000;
static double secs = 3, warm = 1;
static uint8_t out[OUTPUT];
static char *value;

static void die(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) ? 0 : t.tv_sec * 1000000000ull + t.tv_nsec;
}

static unsigned random_key(void) {
    static uint64_t s = 88172645463325252ull;
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    return s % K;
}

// Sockets block: a lock-step request finds room in its buffer.
static void send_all(connection *c, const uint8_t *p, size_t count) {
    while (count) {
        ssize_t w = send(c->fd, p, count, MSG_NOSIGNAL);
        if (w <= 0) die("send");
        p += w, count -= w;
    }
}

static void receive(connection *c) {
    if (c->have == INPUT) die("a reply is too long");
    ssize_t r = recv(c->fd, c->input + c->have, INPUT - c->have, 0);
    if (r <= 0) die("the server closed a connection");
    c->have += r;
}

static void consume(connection *c, size_t count) {
    c->have -= count;
    memmove(c->input, c->input + count, c->have);
}

// MARK: Redis

static size_t redis_request(connection *c, uint8_t *o, unsigned key) {
    (void)c;
    return sprintf((char *)o, "*3\r\n$3\r\nSET\r\n$16\r\nkey-%012u\r\n$%d\r\n%s\r\n"
                   "*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$4\r\n5000\r\n", key, V, value);
}

static size_t redis_reply(connection *c, int *done) {
    uint8_t *first = memchr(c->input, '\n', c->have);
    if (!first) return 0;
    uint8_t *second = memchr(first + 1, '\n', c->input + c->have - first - 1);
    if (!second) return 0;
    *done = c->input[0] == '+' && first[1] == ':' && first[2] >= '1' ? 1 : -1;
    return second + 1 - c->input;
}

// MARK: ZooKeeper

static uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

static uint8_t *put32(uint8_t *p, uint32_t v) {
    *p++ = v >> 24, *p++ = v >> 16, *p++ = v >> 8, *p++ = v;
    return p;
}

static uint8_t *put_bytes(uint8_t *p, const char *bytes, size_t count) {
    p = put32(p, count);
    memcpy(p, bytes, count);
    return p + count;
}

static size_t zookeeper_finish(uint8_t *o, uint8_t *end) {
    put32(o, end - o - 4);
    return end - o;
}

static void zookeeper_open(connection *c) {
    uint8_t hello[49] = {0};
    put32(hello, 45), put32(hello + 16, 40000), put32(hello + 28, 16);
    send_all(c, hello, sizeof hello);
    while (c->have < 4 || c->have < 4 + get32(c->input)) receive(c);
    consume(c, 4 + get32(c->input));
}

static uint8_t *zookeeper_head(uint8_t *o, uint32_t type, unsigned key) {
    char path[32];
    uint8_t *p = put32(put32(o + 4, 1), type);
    p = put_bytes(p, path, sprintf(path, "/key-%012u", key));
    return put_bytes(p, value, V);
}

static size_t zookeeper_request(connection *c, uint8_t *o, unsigned key) {
    (void)c;
    return zookeeper_finish(o, put32(zookeeper_head(o, 5, key), -1));
}

static size_t zookeeper_reply(connection *c, int *done) {
    if (c->have < 4 || c->have < 4 + get32(c->input)) return 0;
    *done = get32(c->input + 16) == 0 ? 1 : -1;
    return 4 + get32(c->input);
}

static void zookeeper_fill(connection *c) {
    int sent = 0, answered = 0;
    while (answered < K) {
        for (; sent < K && sent - answered < 100; sent++) {
            uint8_t *p = put32(put32(zookeeper_head(out, 1, sent), 1), 31);
            send_all(c, out, zookeeper_finish(out, put32(put_bytes(put_bytes(p, "world", 5), "anyone", 6), 0)));
        }
        receive(c);
        for (int done = 0; ; answered++, done = 0) {
            uint32_t error = c->have >= 20 ? get32(c->input + 16) : 0;
            size_t used = zookeeper_reply(c, &done);
            if (!used) break;
            if (done < 0 && error != (uint32_t)-110) errno = 0, die("a node cannot be created");
            consume(c, used);
        }
    }
}

// MARK: etcd over gRPC: as much of HTTP/2 as lock-step puts take
//
// Windows for what is sent are not watched: the server opens them long before a lock-step request of at most MAX_GRPC
// bytes could find them shut.

#define MAX_GRPC 16384

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

static uint8_t *frame(uint8_t *p, size_t count, int type, int flags, uint32_t stream) {
    *p++ = count >> 16, *p++ = count >> 8, *p++ = count, *p++ = type, *p++ = flags;
    return put32(p, stream);
}

static uint8_t *header(uint8_t *p, int name_index, const char *name, const char *text) {
    // Literal without indexing, no Huffman coding: the same bytes in every request.
    if (name_index < 15) {
        *p++ = name_index;
    } else {
        *p++ = 15, *p++ = name_index - 15;
    }
    if (name) *p++ = strlen(name), p = mempcpy(p, name, strlen(name));
    *p++ = strlen(text);
    return mempcpy(p, text, strlen(text));
}

static void grpc_open(connection *c) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    uint8_t *p = mempcpy(out, preface, sizeof preface - 1);
    send_all(c, out, frame(p, 0, SETTINGS, 0, 0) - out);
    c->stream = (uint32_t)-1;
}

static uint8_t *varint(uint8_t *p, size_t v) {
    for (; v > 127; v >>= 7) *p++ = v | 128;
    *p++ = v;
    return p;
}

static size_t grpc_request(connection *c, uint8_t *o, unsigned key) {
    c->stream += 2, c->replied = 0;
    uint8_t *p = o + 9;
    *p++ = 0x83, *p++ = 0x86;  // :method POST, :scheme http
    p = header(p, 4, 0, "/etcdserverpb.KV/Put");
    p = header(p, 1, 0, "etcd");
    p = header(p, 31, 0, "application/grpc");
    p = header(p, 0, "te", "trailers");
    frame(o, p - o - 9, HEADERS, END_HEADERS, c->stream);
    uint8_t *data = p, *message = p + 14;
    p = message;
    *p++ = 10, *p++ = 16;
    p += sprintf((char *)p, "key-%012u", key);
    *p++ = 18, p = varint(p, V), p = mempcpy(p, value, V);
    size_t count = p - message;
    frame(data, count + 5, DATA, END_STREAM, c->stream);
    data[9] = 0, put32(data + 10, count);
    return p - o;
}

static size_t grpc_reply(connection *c, int *done) {
    if (c->have < 9) return 0;
    uint8_t *p = c->input, answer[32];
    size_t count = p[0] << 16 | p[1] << 8 | p[2];
    if (c->have < 9 + count) return 0;
    int type = p[3], flags = p[4];
    uint32_t stream = get32(p + 5);
    if (type == SETTINGS && !(flags & ACK)) {
        send_all(c, answer, frame(answer, 0, SETTINGS, ACK, 0) - answer);
    } else if (type == PING && !(flags & ACK)) {
        send_all(c, answer, (uint8_t *)mempcpy(frame(answer, 8, PING, ACK, 0), p + 9, 8) - answer);
    } else if (type == GOAWAY) {
        errno = 0, die("the server goes away");
    } else if (type == DATA) {
        // Only what went well has a message.
        c->replied |= stream == c->stream && count > 5;
        c->unannounced += count;
        if (c->unannounced > 16384) {
            send_all(c, answer, put32(frame(answer, 4, WINDOW_UPDATE, 0, 0), c->unannounced) - answer);
            c->unannounced = 0;
        }
    }
    if (stream == c->stream && (type == RST_STREAM || ((type == HEADERS || type == DATA) && flags & END_STREAM)))
        *done = c->replied && type == HEADERS ? 1 : -1;
    return 9 + count;
}

// MARK: The load

static const protocol protocols[] = {
    {"redis", 0, redis_request, redis_reply, 0},
    {"zookeeper", zookeeper_open, zookeeper_request, zookeeper_reply, zookeeper_fill},
    {"etcd", grpc_open, grpc_request, grpc_reply, 0},
};

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int dial(const char *hosts, int index) {
    int count = 1;
    for (const char *p = hosts; *p; p++) count += *p == ',';
    const char *host = hosts;
    for (index %= count; index > 0; index--) host = strchr(host, ',') + 1;
    char name[64] = {0};
    const char *colon = strchr(host, ':');
    if (!colon || colon - host > 63) die("HOST:PORT expected");
    memcpy(name, host, colon - host);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1)),
                                  .sin_addr.s_addr = inet_addr(name)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (connect(fd, (void *)&address, sizeof address)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

int main(int argc, char **argv) {
    const protocol *P = 0;
    for (size_t i = 0; argc > 2 && i < sizeof protocols / sizeof *protocols; i++)
        if (!strcmp(argv[1], protocols[i].name)) P = &protocols[i];
    if (!P) {
        fprintf(stderr, "usage: load redis|zookeeper|etcd HOST:PORT,... [n=] [V=] [K=] [secs=] [warm=] [pids=]\n");
        return 2;
    }
    clockid_t clocks[64];
    int processes = 0;
    for (int i = 3; i < argc; i++) {
        char *p = argv[i], *v = strchr(p, '=') ? strchr(p, '=') + 1 : p;
        if (!strncmp(p, "n=", 2)) n = atoi(v);
        if (!strncmp(p, "V=", 2)) V = atoi(v);
        if (!strncmp(p, "K=", 2)) K = atoi(v);
        if (!strncmp(p, "secs=", 5)) secs = atof(v);
        if (!strncmp(p, "warm=", 5)) warm = atof(v);
        if (!strncmp(p, "pids=", 5))
            for (char *q = strtok(v, ","); q && processes < 64; q = strtok(0, ","))
                if (clock_getcpuclockid(atoi(q), &clocks[processes++])) errno = 0, die("pids: no such process");
    }
    if (n < 1 || K < 1 || V < 1 || V > OUTPUT / 4 || (P->open == grpc_open && V > MAX_GRPC))
        return fprintf(stderr, "load: n, K, V: out of range\n"), 2;
    value = malloc(V + 1), memset(value, 'x', V), value[V] = 0;
    uint32_t *latencies = malloc(sizeof(uint32_t) * LATENCIES);
    connection *all = calloc(n, sizeof *all);
    int epoll = epoll_create1(0);
    for (int i = 0; i < n; i++) {
        all[i].fd = dial(argv[2], i);
        if (P->open) P->open(&all[i]);
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &(struct epoll_event){.events = EPOLLIN, .data.u32 = i});
    }
    if (P->fill) P->fill(&all[0]);
    for (int i = 0; i < n; i++) {
        all[i].sent = clock_ns(CLOCK_MONOTONIC);
        send_all(&all[i], out, P->request(&all[i], out, random_key()));
    }
    uint64_t now = clock_ns(CLOCK_MONOTONIC), begin = now + warm * 1e9, end = 0, started = 0;
    uint64_t done = 0, errors = 0, cpu = 0, own = 0;
    size_t kept = 0;
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, 10000);
        if (ready <= 0) errno = 0, die("no answer within 10 s");
        for (int j = 0; j < ready; j++) {
            connection *c = &all[events[j].data.u32];
            receive(c);
            int answered = 0;
            for (size_t used; !answered && (used = P->reply(c, &answered)) > 0;) consume(c, used);
            if (!answered) continue;
            now = clock_ns(CLOCK_MONOTONIC);
            if (end) {
                if (answered > 0) done++; else errors++;
                uint64_t took = (now - c->sent) / 100;
                if (kept < LATENCIES) latencies[kept++] = took > UINT32_MAX ? UINT32_MAX : took;
            }
            c->sent = now;
            send_all(c, out, P->request(c, out, random_key()));
        }
        now = clock_ns(CLOCK_MONOTONIC);
        if (!end && now >= begin) {
            started = now, end = now + secs * 1e9, own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
            for (int i = 0; i < processes; i++) cpu -= clock_ns(clocks[i]);
        } else if (end && now >= end) {
            break;
        }
    }
    for (int i = 0; i < processes; i++) cpu += clock_ns(clocks[i]);
    own = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
    qsort(latencies, kept, sizeof *latencies, compare);
    double seconds = (now - started) / 1e9, requests = done ? done : 1;
    printf("{\"rate\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,", done / seconds, kept ? latencies[kept / 2] / 10.0 : 0,
           kept ? latencies[kept * 99 / 100] / 10.0 : 0);
    printf("\"errors\":%lu,\"seconds\":%.3f,\"replica_cpu_us\":%.2f,\"generator_cpu_us\":%.2f}\n",
           (unsigned long)errors, seconds, cpu / 1e3 / requests, own / 1e3 / requests);
    return 0;
}
