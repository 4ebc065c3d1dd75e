"""A client that takes no library: MPX/1 (docs/client-protocol.md) over ZeroMQ's protocol, as much of both as probes
need."""

import json
import socket
import struct
import time

OPEN, SUBMIT, QUERY, CLOSE, STATUS, PING = range(1, 7)
OK, BUSY, NO_LEADER = 0, 2, 6
MORE, LONG, COMMAND = 1, 2, 4


class Client:
    """One connection to a replica, which takes one request after the other. What does not come in time is a
    TimeoutError."""

    def __init__(self, host, port, timeout=10.0):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        self._read(64)
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03REQ"
        self.socket.sendall(bytes([COMMAND, len(ready)]) + ready)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _read(self, size):
        found = bytearray()
        while len(found) < size:
            some = self.socket.recv(size - len(found))
            if not some:
                raise ConnectionError("the replica closed the connection")
            found += some
        return bytes(found)

    def _message(self):
        """The frames of the next message; commands of ZeroMQ's are passed over."""
        frames = []
        while True:
            flags, size = self._read(2)
            if flags & LONG:
                size = int.from_bytes(bytes([size]) + self._read(7), "big")
            frame = self._read(size)
            if not flags & COMMAND:
                frames.append(frame)
                if not flags & MORE:
                    return frames

    def call(self, command, body=b"", session=0, sequence=0):
        """The status and the body of the reply."""
        header = struct.pack("<4sBBHQQQ", b"MPX1", command, 0, 0, session, sequence, 0)
        before = bytes([MORE, 0, MORE, len(header)]) + header
        self.socket.sendall(before + bytes([LONG]) + struct.pack(">Q", len(body)) + body)
        _, header, body = self._message()
        return header[4], body

    def status(self):
        return json.loads(self.call(STATUS)[1])

    def put(self, key, value):
        """A put without a session; false where the replica is busy or knows no leader, after the wait that it asks
        for."""
        status, body = self.call(SUBMIT, b"P" + struct.pack("<I", len(key)) + key + value)
        if status in (BUSY, NO_LEADER):
            time.sleep(min(struct.unpack("<I", body)[0], 50) / 1000)
        elif status != OK:
            raise ConnectionError(f"a put got status {status}: {body[:100]!r}")
        return status == OK
