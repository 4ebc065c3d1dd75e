"""Forged streams of ZMTP: valid ones, changed by chance, cut short, told slowly, without end. For the port of clients
and that of peers. A port of another protocol needs a class with `endpoint` and `stream` of its own, and a name in
PORTS."""

import os
import select
import socket
import struct
import time

import mpx

MIB = 1 << 20


def greeting(version=(3, 1), mechanism=b"NULL"):
    return b"\xff" + bytes(8) + b"\x7f" + bytes(version) + mechanism.ljust(20, b"\0") + bytes(32)


def frame(content, flags=0, count=None):
    """`count`: the length that is told, in place of the true one."""
    count = len(content) if count is None else count
    if count < 256 and not flags & 2:
        return bytes([flags, count]) + content
    return bytes([flags | 2]) + struct.pack(">Q", count) + content


def message(*frames):
    return b"".join(frame(content, 1 if n + 1 < len(frames) else 0) for n, content in enumerate(frames))


def command(name, rest=b"", flags=4):
    return frame(bytes([len(name)]) + name + rest, flags)


def ready(socket_type=b"DEALER", identity=b""):
    def metadata(name, value):
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value

    return command(b"READY", metadata(b"Socket-Type", socket_type) + metadata(b"Identity", identity))


class ClientPort:
    """MPX/1 to the port of clients."""

    @staticmethod
    def endpoint(cluster, id):
        return "127.0.0.1", cluster.client_port(id)

    @classmethod
    def stream(cls, random):
        """Bytes, and how many frames they are."""
        return Stream(random, cls.content).bytes()

    @staticmethod
    def content(random):
        head = mpx.header(random.choice([mpx.PING, mpx.QUERY, mpx.SUBMIT, mpx.STATUS, mpx.OPEN, 99]),
                          sequence=random.randrange(9))
        body = random.choice([b"", mpx.get(b"forged"), mpx.put(b"forged", b"x" * random.randrange(300)),
                              os.urandom(random.randrange(200))])
        return [b"", head, body]


class PeerPort:
    """MPP/1, or what looks like it, to the port of peers."""

    @staticmethod
    def endpoint(cluster, id):
        return "127.0.0.1", cluster.peer_port(id)

    @classmethod
    def stream(cls, random):
        return Stream(random, cls.content).bytes()

    @staticmethod
    def content(random):
        return [b"MPP1\x02" + bytes([random.randrange(256)]) + os.urandom(random.choice([0, 57, 58, 59, 200])),
                os.urandom(random.randrange(300))]


PORTS = {"client": ClientPort, "peer": PeerPort}


class Stream:
    """One connection's worth of frames: a handshake and messages, and then something happens to it."""

    def __init__(self, random, content):
        self.random, self.content = random, content
        self.parts = []

    def bytes(self):
        random = self.random
        version = random.choice([(3, 0), (3, 1), (3, 1), (3, 1), (4, 0)])
        self.parts = [greeting(version), ready(random.choice([b"REQ", b"DEALER", b"ROUTER"]), b"")]
        for _ in range(random.randrange(10, 120)):
            self.parts.append(self.element())
        count = sum(max(1, part.count(b"\x01\x00")) if len(part) < 4096 else 1 for part in self.parts) - 1
        self.mutate()
        return b"".join(self.parts), count

    def element(self):
        random = self.random
        kind = random.randrange(14)
        if kind < 7:
            return message(*self.content(random))
        if kind == 7:
            return command(b"PING", struct.pack(">H", random.choice([0, 0, 600])) + os.urandom(random.randrange(17)))
        if kind == 8:
            return command(random.choice([b"PONG", b"SUBSCRIBE", b"ERROR", b"READY", b""]),
                           os.urandom(random.randrange(200)))
        if kind == 9:  # Commands among the frames of a message.
            first, *rest = self.content(random)
            return frame(first, 1) + command(b"PING", bytes(2)) * random.randrange(1, 20) + message(*rest)
        if kind == 10:  # An envelope that has no end for a while.
            return message(*[b"%d" % n for n in range(random.choice([3, 9, 20, 400]))])
        if kind == 11:
            return message(*[b""] * random.choice([2, 9, 20, 400]))
        if kind == 12:  # A probe.
            return frame(b"")
        return message(b"", os.urandom(random.randrange(40)), os.urandom(random.randrange(3000)))

    def mutate(self):
        random, parts = self.random, self.parts
        kind = random.randrange(12)
        at = random.randrange(len(parts))
        if kind == 0:
            return
        if kind <= 3:  # Bits.
            for _ in range(random.randrange(1, 5)):
                at = random.randrange(len(parts))
                changed = bytearray(parts[at])
                changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
                parts[at] = bytes(changed)
        elif kind == 4:  # Cut short.
            del parts[at + 1 :]
            parts[at] = parts[at][: random.randrange(len(parts[at]))]
        elif kind == 5:  # In another order.
            random.shuffle(parts)
        elif kind == 6:  # Twice.
            parts[at:at] = parts[random.randrange(len(parts)) :]
        elif kind == 7:  # Lengths that are not true.
            parts.insert(max(2, at),
                         frame(os.urandom(100), random.choice([0, 1, 2, 3, 4, 6]),
                               random.choice([99, 101, 4000, 4 * MIB, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])))
        elif kind == 8:  # Commands that are too long.
            parts.insert(random.choice([1, at]), frame(os.urandom(random.choice([513, 70_000])), 6))
        elif kind == 9:  # A message that never ends.
            parts.append(b"".join(frame(b"z" * random.randrange(60), 1) for _ in range(random.randrange(2000))))
        elif kind == 10:  # The half of a large one.
            parts.append(frame(os.urandom(random.randrange(1, 200_000)), 1, 2 * MIB))
        else:  # ZMTP 2.0.
            parts[:2] = [b"\xff" + bytes(8) + b"\x7f\x01" + bytes([random.choice([3, 5, 6, 1])]), b"\x00\x00"]


class Forger:
    """Sends streams to ports of a cluster until so many frames are sent. Some connections are kept open, and some told
    slowly.
    """

    kept_most = 100

    def __init__(self, random, cluster, ports):
        self.random, self.cluster = random, cluster
        self.targets = [(PORTS[port], id) for port in ports for id in cluster.ids]
        self.kept = []
        self.frames = self.bytes = self.connections = 0

    def send(self, frames, seconds=0):
        """So many at least, and for so long."""
        end = time.monotonic() + seconds
        while self.frames < frames or time.monotonic() < end:
            self.one()
        self.close()

    def one(self):
        random = self.random
        port, id = random.choice(self.targets)
        data, count = port.stream(random)
        self.frames += count
        self.connections += 1
        self.bytes += len(data)
        try:
            connection = socket.create_connection(port.endpoint(self.cluster, id), timeout=10)
        except OSError:
            return
        try:
            connection.settimeout(0.5)
            if random.randrange(8) == 0:
                # Slowly: in pieces, each with a system call of its own.
                step = max(1, len(data) // 50)
                for start in range(0, len(data), step):
                    connection.sendall(data[start : start + step])
            else:
                connection.sendall(data)
            if random.randrange(3) == 0:
                self.drain(connection)
            if random.randrange(4) == 0:
                self.kept.append(connection)
                if len(self.kept) > self.kept_most:
                    self.kept.pop(random.randrange(len(self.kept))).close()
                return
        except OSError:
            pass  # The other end may close at any time, and it may take no more.
        connection.close()

    @staticmethod
    def drain(connection):
        while select.select([connection], [], [], 0)[0] and connection.recv(1 << 16):
            pass

    def close(self):
        for connection in self.kept:
            connection.close()
        self.kept = []
