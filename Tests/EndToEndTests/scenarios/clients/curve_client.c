// A client of MPX/1 with a key, on CZMQ: one OPEN, SUBMIT and QUERY of the key-value service.
//
//     cc curve_client.c -l:libczmq.so.4 && ./a.out ENDPOINT KEY-FILE PUBLIC-KEY-OF-THE-REPLICA
//
// Exit code 0 when each answer was as it must be; else 1, with a line that says which was not. Written from
// docs/client-protocol.md and the manual pages of CZMQ, whose functions are declared here: so the library is enough,
// without its development files.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct zsock zsock_t;
typedef struct zcert zcert_t;
zsock_t *zsock_new_req(const char *endpoint);
int zsock_connect(zsock_t *self, const char *format, ...);
int zsock_send(void *self, const char *picture, ...);
int zsock_recv(void *self, const char *picture, ...);
void zsock_set_rcvtimeo(void *self, int milliseconds);
void zsock_set_linger(void *self, int milliseconds);
void zsock_set_curve_serverkey(void *self, const char *key);
void zsock_destroy(zsock_t **self);
zcert_t *zcert_load(const char *file);
void zcert_apply(zcert_t *self, void *socket);
void zcert_destroy(zcert_t **self);

enum { OPEN = 1, SUBMIT = 2, QUERY = 3 };

static void put(uint8_t *at, uint64_t value) {
    for (int i = 0; i < 8; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void fail(const char *what) {
    fprintf(stderr, "curve_client: %s\n", what);
    exit(1);
}

// Sends one request, and ends the program unless it is answered with OK and, where `expected` is there, with these
// bytes. Returns the session of the reply.
static uint64_t call(zsock_t *socket, const char *what, int command, uint64_t session, uint64_t sequence,
                     const void *body, size_t size, const char *expected, size_t expected_size) {
    uint8_t header[32] = "MPX1";
    header[4] = (uint8_t)command;
    put(header + 8, session);
    put(header + 16, sequence);
    if (zsock_send(socket, "bb", header, sizeof header, body, size) != 0) fail(what);
    uint8_t *reply = NULL, *found = NULL;
    size_t reply_size = 0, found_size = 0;
    if (zsock_recv(socket, "bb", &reply, &reply_size, &found, &found_size) != 0) fail(what);
    if (reply_size != 32 || memcmp(reply, "MPX1", 4) != 0 || reply[4] != 0) fail(what);
    if (expected && (found_size != expected_size || memcmp(found, expected, expected_size) != 0)) fail(what);
    uint64_t result = get(reply + 8);
    free(reply);
    free(found);
    return result;
}

int main(int count, char **arguments) {
    if (count != 4) fail("usage: curve_client ENDPOINT KEY-FILE PUBLIC-KEY-OF-THE-REPLICA");
    zcert_t *certificate = zcert_load(arguments[2]);
    if (!certificate) fail("the key file cannot be loaded");
    zsock_t *socket = zsock_new_req(NULL);
    if (!socket) fail("no socket");
    zcert_apply(certificate, socket);
    zsock_set_curve_serverkey(socket, arguments[3]);
    zsock_set_rcvtimeo(socket, 10000);
    zsock_set_linger(socket, 0);
    if (zsock_connect(socket, "%s", arguments[1]) != 0) fail("the endpoint cannot be connected to");

    uint64_t session = call(socket, "OPEN", OPEN, 0, 1, "", 0, "", 0);
    if (session == 0) fail("OPEN gave no session");
    // Operation, length of the key (u32), key; and the value.
    static const char write[] = "P\4\0\0\0czmqhello", read[] = "G\4\0\0\0czmq";
    call(socket, "SUBMIT", SUBMIT, session, 1, write, sizeof write - 1, "\0", 1);
    call(socket, "QUERY", QUERY, 0, 2, read, sizeof read - 1, "\1hello", 6);

    zsock_destroy(&socket);
    zcert_destroy(&certificate);
    return 0;
}
