"""Unknown and hostile input on the client port and on the peer port: the replica lives, counts, and serves others
meanwhile.
"""

import os
import socket
import struct
import threading
import time
import urllib.request

import zmq

import mpx
from harness import eventually, main, scenario
from mpx import MALFORMED, OK, PING, QUERY, SUBMIT, add, get, header, number, put, some

MIB = 1 << 20
REFUSED, CUT_OFF = "mpaxos_strangers_refused_total", "mpaxos_peer_connections_cut_off_total"


class Others:
    """Clients that behave, meanwhile: each request is done within a bound, through every replica."""

    bound = 15.0

    def __init__(self, run, cluster):
        self.run, self.cluster = run, cluster
        self.stopping = threading.Event()
        # Replicas that are not to be asked, and the lock under which one is.
        self.paused, self.asking, self.clients = set(), threading.Lock(), {}
        self.count, self.slowest, self.error = 0, 0.0, None
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        try:
            while not self.stopping.is_set():
                for id in self.cluster.ids:
                    with self.asking:
                        if id in self.paused:
                            continue
                        if id not in self.clients:
                            self.clients[id] = self.client(id)
                        begin = time.monotonic()
                        self.clients[id].submit(add(b"others", 1), deadline=self.bound)
                        self.clients[id].query(get(b"others"), deadline=self.bound)
                        self.slowest = max(self.slowest, time.monotonic() - begin)
                        self.count += 1
            for client in self.clients.values():
                client.close()
        except Exception as error:
            self.error = f"replica {id}: {error!r}"

    def client(self, id):
        return mpx.Client([self.cluster.endpoint(id)], patience=5, curves=[self.cluster.curve(id)]).open()

    def pause(self, id):
        """Replica `id` is asked nothing from now on; what it was asked is done."""
        with self.asking:
            self.paused.add(id)
            self.clients.pop(id, None)

    def resume(self, id):
        """It is asked again, over a new connection."""
        self.paused.discard(id)

    def go_on(self, count=6):
        goal = self.count + count
        eventually(lambda: self.error or self.count >= goal, "others are served meanwhile", 60)
        self.run.check(self.error is None, f"others are served meanwhile: {self.error}")

    def finish(self):
        self.go_on()
        self.stopping.set()
        self.thread.join(60)
        self.run.check(self.error is None, f"others were served: {self.error}")
        self.run.equal(self.cluster.client().query(get(b"others")).body, some(number(self.count)), "what others did")
        print(f"others: {self.count} requests, the slowest took {self.slowest:.2f} s")


class Memory:
    """Memory of the replicas must not grow beyond a bound, whatever is sent."""

    def __init__(self, run, cluster, bound=96 * MIB):
        self.run, self.cluster, self.bound = run, cluster, bound
        self.before = {id: cluster.processes[id].anonymous_memory() for id in cluster.ids}

    def check(self, what):
        for id in self.cluster.ids:
            now = self.cluster.processes[id].anonymous_memory()
            self.run.check(now - self.before[id] <= self.bound,
                           f"memory of replica {id} after {what}: {self.before[id] / MIB:.1f} MiB before, {now / MIB:.1f} MiB now")


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def shout(port, data):
    """Sends raw bytes; the other end may close at any time."""
    try:
        with connect(port) as connection:
            connection.sendall(data)
    except OSError:
        pass


GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL" + bytes(16) + b"\x00" + bytes(31)


def ready(socket_type, identity=b""):
    def metadata(name, value):
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value

    body = b"\x05READY" + metadata(b"Socket-Type", socket_type) + metadata(b"Identity", identity)
    return b"\x04" + bytes([len(body)]) + body


def raw(run, port):
    """Bytes that are no ZMTP, or begin as ZMTP and end as something else."""
    for n in range(40):
        shout(port, run.random.randbytes(run.random.choice([1, 9, 64, 500, 20_000])))
    greeted = GREETING + ready(b"DEALER", b"replica-2")
    for data in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"MPX1" + bytes(28), b"MPP1" + bytes(60), bytes(100_000),
        b"\xff" * 100_000,
        GREETING[:1], GREETING[:12], GREETING, GREETING[:11] + b"\x63" + GREETING[12:],
        GREETING[:12] + b"CURVE" + bytes(47),
        GREETING + ready(b"PUB"), GREETING + b"\x04\xff" + os.urandom(64), GREETING + b"\x06" + b"\xff" * 8,
        GREETING + ready(b"REQ")[:-3],
        # A frame that claims 2^63 - 1, 2^64 - 1 and 512 MiB.
        greeted + b"\x02" + struct.pack(">Q", (1 << 63) - 1) + b"x" * 100, greeted + b"\x02" + b"\xff" * 8 + b"x" * 100,
        greeted + b"\x02" + struct.pack(">Q", 512 * MIB) + b"x" * 100_000,
        # Frames without end, commands where messages belong, reserved bits.
        greeted + b"\x01\x00" * 20_000, greeted + b"\x01\x01x" * 20_000, greeted + b"\x04\x05\x04PING" * 100,
        greeted + b"\xf8\x05hello", greeted + os.urandom(50_000),
    ):
        shout(port, data)


def silent(run, port, count=150):
    """Connections that say nothing, or half of what they should; they stay open until the caller closes them."""
    kept = []
    for n in range(count):
        connection = connect(port)
        connection.sendall([b"", GREETING[:20], GREETING, GREETING + ready(b"DEALER")][n % 4])
        kept.append(connection)
    return kept


@scenario
def client_port(run):
    cluster = run.cluster(client={"max_request": "64KiB"}).start_all()
    others = Others(run, cluster)
    others.go_on()
    memory = Memory(run, cluster)
    port = cluster.client_port
    kept = []
    for id in cluster.ids:
        kept += silent(run, port(id))
        raw(run, port(id))
        others.go_on()
        frames(run, cluster, id)
        others.go_on()
        short_connections(run, cluster, id)
        others.go_on()
        memory.check("garbage on the client port")
    for connection in kept:
        connection.close()
    others.finish()
    memory.check("it all")
    cluster.settle()


def frames(run, cluster, id):
    """Well-formed messages of garbage: every one is counted, and answered where it has an envelope and is no reply by
    chance.
    """
    before = cluster.status(id)["rejected"]
    link = cluster.link(id, "dealer", SNDHWM=0)
    random = run.random
    sent = answers = large = 0
    for n in range(300):
        envelope = [random.randbytes(random.randrange(1, 257)) for _ in range(random.randrange(0, 9))]
        content = [random.randbytes(random.choice([0, 1, 31, 32, 33, 1000])) for _ in range(random.randrange(0, 5))]
        kind = n % 5
        if kind == 0:  # No delimiter at all.
            message = envelope + [b"x"]
        elif kind == 1:  # Anything behind a proper envelope.
            message = envelope[:6] + [b""] + (content or [b"x"])
            answers += 1
        elif kind == 2:  # A header of the right size, full of nonsense.
            message = [b"", b"MPX1" + b"\xff" * 28, random.randbytes(20)]
            answers += 1
        elif kind == 3:  # A proper command with a body of nonsense.
            message = [b"", header(SUBMIT, sequence=n), b"\xee" + random.randbytes(100)]
            answers += 1
        else:  # Frames without number.
            message = [b""] * 500 if n % 10 else [b"y"] * 2000
            answers += 1 if n % 10 else 0
        link.socket.send_multipart(message)
        sent += 1
    for _ in range(answers):
        answer = link.receive_frames(30)
        reply = mpx.decode(answer[-2:])
        run.reply(reply, "garbage with an envelope", status=MALFORMED, replica=id, position=0)
    after = cluster.status(id)["rejected"]
    run.equal(after["malformed"], before["malformed"] + sent, "every message of garbage is counted")
    run.equal((after["too_large"], after["busy"]), (before["too_large"], before["busy"]), "and as nothing else")
    run.reply(link.call(PING, b"alive"), "the same connection serves on", status=OK, body=b"alive")


def short_connections(run, cluster, id, count=700):
    for n in range(count):
        connection = connect(cluster.client_port(id))
        if n % 3 == 1:
            connection.sendall(GREETING)
        elif n % 3 == 2:
            # A request whose client is gone before the reply.
            body = add(b"gone", 1)
            connection.sendall(GREETING + ready(b"REQ") + b"\x01\x00\x01\x20" + header(SUBMIT) + bytes([
                0, len(body)]) + body)
        connection.close()


def metric(cluster, id, name):
    """The sum over all labels."""
    with urllib.request.urlopen(cluster.http(id) + "/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and line[len(name)] in " {")


@scenario
def peer_port(run):
    """The same at the port where replicas meet, by strangers and by one that bears a replica's routing id."""
    cluster = run.cluster(http=True).start_all()
    others = Others(run, cluster)
    others.go_on()
    memory = Memory(run, cluster)
    kept = []
    for id in cluster.ids:
        port = cluster.peer_port(id)
        kept += silent(run, port)
        raw(run, port)
        refused, cut_off = (metric(cluster, id, name) for name in (REFUSED, CUT_OFF))
        sent = peer_frames(run, cluster, id, None)
        eventually(lambda: metric(cluster, id, REFUSED) >= refused + sent or
                   metric(cluster, id, REFUSED) > refused and metric(cluster, id, CUT_OFF) > cut_off,
                   f"replica {id} counts {sent} frames of strangers, or has had enough of them")
        others.go_on()
        memory.check("garbage on the peer port")
    for connection in kept:
        connection.close()
    others.finish()
    cluster.settle()
    memory.check("it all")


@scenario
def impostors(run):
    """Garbage by one that bears a replica's routing id: the cluster serves, and is whole once the impostor is gone."""
    cluster = run.cluster(http=True).start_all()
    others = Others(run, cluster)
    others.go_on()
    for id in cluster.ids:
        for victim in cluster.ids:
            peer_frames(run, cluster, id, b"replica-%d" % victim)
        others.go_on()
    others.finish()
    cluster.settle()


def peer_frames(run, cluster, id, identity):
    """Messages of garbage at the peer port. Returns how many."""
    socket = mpx.context.socket(zmq.DEALER)
    if identity:
        socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.SNDTIMEO, 2000)
    socket.setsockopt(zmq.LINGER, 2000)
    socket.connect(f"tcp://127.0.0.1:{cluster.peer_port(id)}")
    random = run.random
    sent = 0
    try:
        for n in range(200):
            body = random.randbytes(random.choice([0, 1, 63, 64, 65, 5000]))
            if n % 4 == 0:
                message = [body]
            elif n % 4 == 1:
                message = [b"MPP1\x02" + bytes([random.randrange(256)]) + random.randbytes(random.choice([58, 200]))]
            elif n % 4 == 2:
                message = [b"MPP1" + random.randbytes(60), body]
            else:
                message = [b""] * random.randrange(1, 300)
            socket.send_multipart(message)
            sent += 1
    except zmq.Again:
        pass
    socket.close()
    return sent


@scenario
def deaf_clients(run):
    """Clients that ask for much and read nothing: they lose their own replies; others are served, and memory stays
    bounded.
    """
    cluster = run.cluster(client={"max_request": "64KiB"}).start_all()
    value = os.urandom(60_000)
    cluster.client().open().submit(put(b"large", value))
    others = Others(run, cluster)
    others.go_on()
    memory = Memory(run, cluster, bound=256 * MIB)
    request = mpx.get(b"large")
    for id in cluster.ids:
        deaf = [cluster.link(id, "dealer", RCVHWM=1, RCVBUF=4096, SNDTIMEO=3000) for _ in range(2)]
        for n in range(4000):
            for link in deaf:
                try:
                    if n % 4:
                        link.send_frames([header(PING, sequence=n), value])
                    else:
                        link.send_frames([header(QUERY, sequence=n), request])
                except zmq.Again:
                    pass  # Held back by the replica: as good as dropped.
        others.go_on()
        memory.check("clients that do not read")
        for link in deaf:
            link.close()
    others.finish()
    cluster.settle()


if __name__ == "__main__":
    main()
