// libzmq for Swift, by module map: Debian's libzmq.pc carries flags that SwiftPM refuses.
#ifndef CZEROMQ_SHIM_H
#define CZEROMQ_SHIM_H

#include <errno.h>
#include <zmq.h>

// Error codes of libzmq's own are expressions over other macros: as constants for Swift.
static const int czmq_ETERM = ETERM;
static const int czmq_EMTHREAD = EMTHREAD;
static const int czmq_ENOCOMPATPROTO = ENOCOMPATPROTO;

_Static_assert(sizeof(zmq_msg_t) == 64, "a RawFrame carries the 64 bytes of a zmq_msg_t");

#endif
