"""MPX/1 as an independent client speaks it: written from the protocol's description, with pyzmq and nothing of the
project.
"""

import struct
import sys
import time
from dataclasses import dataclass

try:
    import zmq
except ImportError:
    sys.exit(
        f"{sys.executable} has no ZeroMQ: scripts/setup installs python3-zmq; MPAXOS_PYTHON names an interpreter that has it")

OPEN, SUBMIT, QUERY, CLOSE, STATUS, PING = range(1, 7)
OK, REDIRECT, BUSY, STALE, EXPIRED, MALFORMED, NO_LEADER, TOO_LARGE, FULL, DENIED = range(10)
NO_FORWARD, LOCAL = 1, 2
STATUS_NAMES = ["OK", "REDIRECT", "BUSY", "STALE", "EXPIRED", "MALFORMED", "NO_LEADER", "TOO_LARGE", "FULL", "DENIED"]

HEADER = struct.Struct("<4sBBHQQQ")
context = zmq.Context()


class Silent(Exception):
    """No reply within the time."""


@dataclass(frozen=True)
class Reply:
    status: int
    flags: int
    replica: int
    session: int
    sequence: int
    position: int
    body: bytes

    @property
    def kept(self):
        """What a retry must find again, whichever replica answers."""
        return (self.status, self.session, self.sequence, self.position, self.body)

    def __str__(self):
        name = STATUS_NAMES[self.status] if self.status < len(STATUS_NAMES) else f"status {self.status}"
        body = repr(self.body if len(self.body) <= 80 else self.body[:80] + b"...")
        return (f"{name} flags={self.flags} replica={self.replica} session={self.session} sequence={self.sequence} "
                f"position={self.position} body[{len(self.body)}]={body}")


def header(command, flags=0, session=0, sequence=0, position=0, reserved=0, magic=b"MPX1"):
    return HEADER.pack(magic, command, flags, reserved, session, sequence, position)


def decode(frames):
    """A reply from its two frames."""
    if len(frames) != 2 or len(frames[0]) != 32:
        raise AssertionError(
            f"a reply must be a header of 32 bytes and a body, got {[len(frame) for frame in frames]} bytes")
    magic, status, flags, replica, session, sequence, position = HEADER.unpack(frames[0])
    if magic != b"MPX1":
        raise AssertionError(f"a reply must begin with MPX1, got {magic!r}")
    return Reply(status, flags, replica, session, sequence, position, frames[1])


@dataclass(frozen=True)
class Curve:
    """The keys of a connection, each 40 bytes of Z85: the client's own pair, and the public half of the replica's."""

    public: bytes
    secret: bytes
    server: bytes

    def apply(self, socket):
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = self.public, self.secret, self.server


class Link:
    """A socket to one replica. `kind`: "req", "correlate" (REQ with RELAXED and CORRELATE) or "dealer". `curve`: its
    keys, where clients have some."""

    def __init__(self, endpoint, kind="req", curve=None, **options):
        self.endpoint, self.kind, self.curve, self.options = endpoint, kind, curve, options
        self.socket = None
        self.connect()

    def connect(self):
        if self.socket is not None:
            self.socket.close(0)
        self.socket = context.socket(zmq.DEALER if self.kind == "dealer" else zmq.REQ)
        if self.kind == "correlate":
            self.socket.setsockopt(zmq.REQ_RELAXED, 1)
            self.socket.setsockopt(zmq.REQ_CORRELATE, 1)
        for name, value in self.options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        if self.curve:
            self.curve.apply(self.socket)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self.socket.connect(self.endpoint)

    def close(self):
        self.socket.close(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_frames(self, frames, envelope=(b"",)):
        """`envelope`: what a DEALER puts before the content; REQ does that by itself."""
        frames = list(frames)
        if self.kind == "dealer":
            frames = list(envelope) + frames
        self.socket.send_multipart(frames)

    def receive_frames(self, timeout=10.0):
        """All frames of one message; a DEALER's begin with the envelope."""
        if not self.socket.poll(int(timeout * 1000)):
            raise Silent(f"no reply from {self.endpoint} within {timeout} s")
        return self.socket.recv_multipart()

    def exchange(self, frames, envelope=(b"",), timeout=10.0):
        """Sends the content `frames`, returns the reply."""
        self.send_frames(frames, envelope)
        try:
            answer = self.receive_frames(timeout)
        except Silent:
            # A REQ that waits for its reply takes no other request.
            self.connect()
            raise
        if self.kind == "dealer":
            if answer[: len(envelope)] != list(envelope):
                raise AssertionError(f"the envelope {envelope!r} came back as {answer[:len(envelope)]!r}")
            answer = answer[len(envelope) :]
        return decode(answer)

    def call(self, command, body=b"", *, session=0, sequence=0, flags=0, position=0, timeout=10.0):
        return self.exchange([header(command, flags, session, sequence, position), body], timeout=timeout)


class Failed(Exception):
    """A request got an answer that ends it, other than OK and FULL."""

    def __init__(self, reply):
        super().__init__(str(reply))
        self.reply = reply


class Client:
    """Any replica, whatever has to be retried, always with the same sequence. One thread; one request at a time."""

    def __init__(self, endpoints, start=0, patience=1.5, kind="req", curves=None):
        """`curves`: the keys for each of the endpoints."""
        self.endpoints = list(endpoints)
        self.curves = list(curves) if curves else [None] * len(self.endpoints)
        self.at = start % len(self.endpoints)
        self.patience = patience
        self.kind = kind
        self.links = {}
        self.session = 0
        self.sequence = 0
        self.retries = 0

    def close(self):
        for link in self.links.values():
            link.close()
        self.links = {}

    def link(self, index):
        if index not in self.links:
            self.links[index] = Link(self.endpoints[index], self.kind, self.curves[index])
        return self.links[index]

    def request(self, command, body=b"", *, session=0, sequence=0, flags=0, position=0, deadline=60.0):
        """The reply that ends the request. Raises `Silent` when there is none by the deadline."""
        end = time.monotonic() + deadline
        last = "no answer"
        while time.monotonic() < end:
            try:
                reply = self.link(self.at).call(
                    command, body, session=session, sequence=sequence, flags=flags, position=position,
                    timeout=self.patience)
            except Silent:
                self.retries += 1
                self.at = (self.at + 1) % len(self.endpoints)
                continue
            if reply.status in (BUSY, NO_LEADER):
                last = str(reply)
                self.retries += 1
                wait = struct.unpack("<I", reply.body)[0]
                if reply.status == NO_LEADER:
                    self.at = (self.at + 1) % len(self.endpoints)
                time.sleep(min(wait, 200) / 1000)
                continue
            return reply
        raise Silent(
            f"command {command} (session {session}, sequence {sequence}) not done within {deadline} s; last: {last}")

    def open(self, deadline=60.0):
        reply = self.request(OPEN, sequence=1, deadline=deadline)
        if reply.status != OK or reply.session == 0:
            raise Failed(reply)
        self.session, self.sequence = reply.session, 0
        return self

    def submit(self, body, deadline=60.0):
        """The next command of the session, executed exactly once."""
        self.sequence += 1
        return self.again(body, deadline)

    def again(self, body, deadline=60.0):
        """The session's last command once more."""
        reply = self.request(SUBMIT, body, session=self.session, sequence=self.sequence, deadline=deadline)
        if reply.status not in (OK, FULL):
            raise Failed(reply)
        return reply

    def query(self, body, deadline=60.0):
        reply = self.request(QUERY, body, deadline=deadline)
        if reply.status != OK:
            raise Failed(reply)
        return reply


# The key-value service.


def _command(op, key, rest=b""):
    return op + struct.pack("<I", len(key)) + key + rest


def put(key, value):
    return _command(b"P", key, value)


def get(key):
    return _command(b"G", key)


def delete(key):
    return _command(b"D", key)


def cas(key, expected, new):
    """`expected` None: the key must be absent."""
    present = 0 if expected is None else 1
    expected = expected or b""
    return _command(b"C", key, struct.pack("<BI", present, len(expected)) + expected + new)


def append(key, data):
    return _command(b"A", key, data)


def add(key, delta):
    return _command(b"I", key, struct.pack("<q", delta))


def scan(prefix=b"", limit=0):
    return _command(b"S", prefix, struct.pack("<I", limit))


def some(value):
    return b"\x01" + value


NONE = b"\x00"


def number(value):
    return struct.pack("<q", value)


def entries(body):
    """(more, {key: value}) of a scan's reply."""
    tag, more, count = struct.unpack_from("<BBI", body)
    assert tag == 1 and more in (0, 1), f"a scan's reply begins with tag 1 and more 0 or 1: {body[:6]!r}"
    at, found = 6, {}
    for _ in range(count):
        (size,) = struct.unpack_from("<I", body, at)
        key = body[at + 4 : at + 4 + size]
        at += 4 + size
        (size,) = struct.unpack_from("<I", body, at)
        value = body[at + 4 : at + 4 + size]
        at += 4 + size
        assert key not in found, f"a scan names {key!r} twice"
        found[key] = value
    assert at == len(body), f"a scan's reply has {len(body) - at} bytes beyond its entries"
    return more, found
