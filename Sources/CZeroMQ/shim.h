// libzmq for Swift, by module map: Debian's libzmq.pc carries flags that SwiftPM refuses.
#ifndef CZEROMQ_SHIM_H
#define CZEROMQ_SHIM_H

#include <errno.h>
#include <zmq.h>

// Error codes of libzmq's own are expressions over other macros: as constants for Swift.
static const int czmq_ETERM = ETERM;
static const int czmq_EMTHREAD = EMTHREAD;
static const int czmq_ENOCOMPATPROTO = ENOCOMPATPROTO;

// zmq_msg_more is a call into the library that reads one flag; all of these are one call each, spelled for raw memory of 64 bytes,
// so that a message kept in a ring's slot needs no typed pointer in Swift.
static inline void *czmq_data(void *message) { return zmq_msg_data((zmq_msg_t *)message); }
static inline size_t czmq_size(const void *message) { return zmq_msg_size((const zmq_msg_t *)message); }

_Static_assert(sizeof(zmq_msg_t) == 64, "a RawFrame carries the 64 bytes of a zmq_msg_t");

#endif
