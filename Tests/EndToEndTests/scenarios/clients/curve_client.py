"""A client of MPX/1 with a key, on pyzmq: one OPEN, SUBMIT and QUERY of the key-value service.

    python3 curve_client.py ENDPOINT KEY-FILE PUBLIC-KEY-OF-THE-REPLICA

Exit code 0 when each answer was as it must be. Written from docs/client-protocol.md."""

import struct
import sys

import zmq
import zmq.auth

endpoint, file, server = sys.argv[1:]
socket = zmq.Context().socket(zmq.REQ)
socket.curve_publickey, socket.curve_secretkey = zmq.auth.load_certificate(file)
socket.curve_serverkey = server.encode()
socket.setsockopt(zmq.RCVTIMEO, 10_000)
socket.setsockopt(zmq.LINGER, 0)
socket.connect(endpoint)


def call(command, body=b"", session=0, sequence=0):
    socket.send_multipart([struct.pack("<4sBBHQQQ", b"MPX1", command, 0, 0, session, sequence, 0), body])
    header, found = socket.recv_multipart()
    magic, status, session = struct.unpack_from("<4sB3xQ", header)
    if (len(header), magic, status) != (32, b"MPX1", 0):
        sys.exit(f"curve_client.py: command {command} got status {status}: {found!r}")
    return session, found


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"curve_client.py: {what} got {found!r}")


key = struct.pack("<I", 5) + b"pyzmq"
session, _ = call(1, sequence=1)
expect("SUBMIT", call(2, b"P" + key + b"hello", session, 1)[1], b"\0")
expect("QUERY", call(3, b"G" + key, sequence=2)[1], b"\1hello")
