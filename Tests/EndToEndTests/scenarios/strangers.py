"""Who reaches the peer port and knows all that a replica says there: it passes for nobody, and takes no memory."""

import ctypes
import socket
import struct
import threading
import time

import zmq

import mpx
from garbage import CUT_OFF, GREETING, MIB, REFUSED, Memory, Others, connect, metric, ready
from harness import eventually, main, scenario
from mpx import OK, SUBMIT, add, number, some


class Ear:
    """A socket in the place of a replica that is down: it keeps what the others say there."""

    def __init__(self, cluster, id):
        self.socket = mpx.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(f"tcp://127.0.0.1:{cluster.peer_port(id)}")

    def hear(self, sender):
        """The first HELLO of the replica with index `sender`."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.socket.poll(100):
                frame = self.socket.recv_multipart()[-1]
                if frame[:4] == b"MPP1" and frame[5] == 0xF0 and frame[6] == sender:
                    return frame
        raise AssertionError(f"replica {sender} says HELLO")

    def close(self):
        self.socket.close()


class Stranger:
    """Says the same again and again at a peer port, and keeps what it is answered."""

    def __init__(self, cluster, id, frame):
        self.socket = mpx.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"tcp://127.0.0.1:{cluster.peer_port(id)}")
        self.frame, self.answers, self.said = frame, [], 0

    def go_on(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.socket.send(self.frame)
            self.said += 1
            if self.socket.poll(50):
                self.answers.append(self.socket.recv_multipart()[-1])

    def kinds(self):
        return {frame[5] for frame in self.answers}

    def close(self):
        self.socket.close()


def links(cluster, id):
    return [peer["connected"] for peer in cluster.status(id)["peers"]]


@scenario
def replayed(run):
    """A HELLO that a replica has really said, in its present life, said by another: not answered as the replica's is,
    the link stands, and nothing is held against the replica when it starts again."""
    cluster = run.cluster(http=True).start_all()
    cluster.stop(0)
    ear = Ear(cluster, 0)
    hello = ear.hear(2)
    ear.close()
    cluster.start(0)
    eventually(lambda: links(cluster, 0) == [True, True], "all are linked")
    client = cluster.client(2).open()
    refused = metric(cluster, 0, REFUSED)
    linked = cluster.processes[2].log().count("linked to replica 0")
    stranger = Stranger(cluster, 0, hello)
    for n in range(5):
        stranger.go_on(0.8)
        run.equal(links(cluster, 0), [True, True], "the links while a stranger repeats a HELLO")
        run.reply(client.submit(add(b"sum", 1)), "meanwhile", status=OK, body=some(number(n + 1)))
    run.equal(cluster.processes[2].log().count("linked to replica 0"), linked, "links that replica 2 has made anew")
    run.check(stranger.kinds() <= {0xF2}, f"nobody gets WELCOME but the replica: {stranger.kinds()}")
    for answer in stranger.answers:
        text = answer[64:].decode(errors="replace")
        run.check("was called at" in text and "incarnation" not in text, f"what the stranger is told: {text!r}")
    run.check(metric(cluster, 0, REFUSED) > refused, "it is counted")
    run.check("says HELLO in its name does not answer there" in cluster.processes[0].log(), "it is said")
    cluster.stop(2)
    stranger.go_on(0.5)
    run.equal(links(cluster, 0), [True, False], "the links of replica 0 without replica 2")
    cluster.start(2)
    stranger.go_on(0.5)
    stranger.close()
    eventually(lambda: links(cluster, 0) == [True, True], "all are linked again")
    cluster.settle()


@scenario
def first_to_come(run):
    """A stranger is at a new cluster's port before the replica: with pools of that replica that were formatted
    elsewhere. It is not put on record, and the founding is that of the real ones."""
    elsewhere = run.cluster(prepare=False, name="e2e")
    elsewhere.format(2)
    ear = Ear(elsewhere, 0)
    elsewhere.launch(2)
    hello = ear.hear(2)
    ear.close()
    elsewhere.stop(2)
    cluster = run.cluster(http=True)
    cluster.launch(0)
    cluster.launch(1)
    stranger = Stranger(cluster, 0, hello)
    stranger.go_on(1.5)
    run.equal(cluster.status(0)["waiting_for"], [2], "replica 2 has not been met")
    cluster.start(2)
    stranger.go_on(0.5)
    for id in (0, 1):
        cluster.await_ready(id)
    run.equal([cluster.status(id)["founded"] for id in cluster.ids], [True] * 3, "founded")
    run.check(stranger.kinds() <= {0xF2}, f"nobody gets WELCOME but the replica: {stranger.kinds()}")
    stranger.close()
    cluster.settle()


@scenario
def claimed_names(run):
    """libzmq names connections that do not name themselves by a counter, and ends the process when somebody has claimed
    the next name: nobody can know which that is. It begins at what rand() gives, and rand() begins alike where nobody
    seeds it."""
    libc = ctypes.CDLL(None)
    libc.srand(1)
    starts = [(libc.rand() | libc.rand() << 31) & 0xFFFFFFFF for _ in range(12)]
    for what, options in (("peer", {}), ("client", {"client": {"socket": "libzmq-router"}}),
                          ("client", {"keys": True})):
        cluster = run.cluster(name=f"e2e-{what}-{len(run.clusters)}", **options).start_all()
        endpoint = f"tcp://127.0.0.1:{cluster.peer_port(0)}" if what == "peer" else cluster.endpoint(0)

        def come(name=None):
            link = mpx.context.socket(zmq.DEALER)
            link.linger = 0
            if name:
                link.setsockopt(zmq.IDENTITY, name)
            if cluster.keys:
                cluster.curve(0, "reader").apply(link)
            greeted = link.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            link.connect(endpoint)
            return link, greeted

        def await_handshakes(links):
            """Of all that are let in: beyond the bound of strangers some are cut off."""
            end = time.monotonic() + 2
            while time.monotonic() < end and not all(greeted.poll(20) for _, greeted in links):
                pass

        for first in range(0, len(starts), 6):
            kept = [come(b"\0" + struct.pack(">I", (start + n) & 0xFFFFFFFF)) for start in starts[first : first + 6]
                    for n in range(2 + first, 10 + first)]
            await_handshakes(kept)
            kept += [come() for _ in range(14)]
            await_handshakes(kept)
            for link, _ in kept:
                link.disable_monitor()
                link.close()
        cluster.check_running()
        cluster.client(1).open().submit(add(b"n", 1))
        cluster.stop(*cluster.ids)


@scenario
def endless_parts(run):
    """Messages whose last part never comes, and large ones of which half comes, at the peer port: libzmq has no bound
    for the first."""
    cluster = run.cluster(http=True).start_all()
    others = Others(run, cluster)
    others.go_on()
    memory = Memory(run, cluster, bound=80 * MIB)
    greeted = GREETING + ready(b"DEALER")

    def flood(port, data, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with connect(port) as connection:
                    connection.settimeout(5)
                    connection.sendall(greeted)
                    while time.monotonic() < end:
                        connection.sendall(data)
            except OSError:
                pass

    half = b"\x02" + (6 * MIB).to_bytes(8, "big") + bytes(5 * MIB)
    for id in cluster.ids:
        before = metric(cluster, id, CUT_OFF)
        floods = [threading.Thread(target=flood, args=(cluster.peer_port(id), data, 3))
                  for data in (b"\x01\x00" * 100_000, half)]
        for thread in floods:
            thread.start()
        while any(thread.is_alive() for thread in floods):
            memory.check("messages without end")
            time.sleep(0.1)
        for thread in floods:
            thread.join()
        run.check(metric(cluster, id, CUT_OFF) > before, "they were cut off")
        others.go_on()
    others.finish()
    memory.check("it all")
    cluster.settle()


@scenario
def crowd(run):
    """More connections to the peer ports than anybody needs, all silent: a replica that starts again is linked all the
    same.
    """
    cluster = run.cluster(http=True).start_all()
    kept = []
    for _ in range(3):
        for id in cluster.ids:
            for n in range(150):
                connection = connect(cluster.peer_port(id))
                connection.sendall(GREETING + ready(b"DEALER"))
                kept.append(connection)
        cluster.kill9(1)
        cluster.start(1)
        eventually(lambda: all(links(cluster, id) == [True, True] for id in cluster.ids), "all are linked")
    eventually(lambda: metric(cluster, 0, CUT_OFF) > 100, "most of the crowd was cut off")
    for connection in kept:
        connection.close()
    cluster.settle()


def hang_up(connection, seconds=0.5):
    """Closes a connection once the other side has, or a moment later."""
    end = time.monotonic() + seconds
    connection.settimeout(seconds)
    try:
        while time.monotonic() < end and connection.recv(4096):
            pass
    except OSError:
        pass
    connection.close()


@scenario
def wrong_socket(run):
    """While a replica is down a program listens at its peer port that speaks ZeroMQ, and none that fits, or breaks it:
    libzmq connects never again to such an endpoint by itself. When the replica is back, all are linked, and one of the
    others may go."""
    cluster = run.cluster().start_all()
    for n in range(2):
        cluster.stop(0)
        if n == 0:
            ear = mpx.context.socket(zmq.PUB)
            ear.bind(f"tcp://127.0.0.1:{cluster.peer_port(0)}")
            time.sleep(1)  # For so long it is there; each replica tries some hundred times.
            ear.close()
        else:
            with socket.create_server(("127.0.0.1", cluster.peer_port(0))) as listener:
                listener.settimeout(10)
                for _ in range(2):
                    connection, _ = listener.accept()
                    connection.sendall(GREETING + ready(b"ROUTER") + b"\x02" + (1 << 40).to_bytes(8, "big") + b"x")
                    hang_up(connection)
        cluster.start(0)
        eventually(lambda: all(links(cluster, id) == [True, True] for id in cluster.ids), "all are linked")
    client = cluster.client(0).open()
    cluster.kill9(2)
    run.reply(client.submit(add(b"sum", 1), deadline=30), "through two of three", status=OK, body=some(number(1)))
    cluster.start(2)
    cluster.settle()


if __name__ == "__main__":
    main()
