"""What strangers and clumsy clients may cost at the ports: places, memory, time, room for requests, and the names of
sockets.
"""

import json
import os
import socket
import struct
import subprocess
import time

import zmq

import forgery
import mpx
from forgery import MIB, frame, greeting, message, ready
from harness import EXECUTABLE, die_with_parent, eventually, execute, main, scenario
from mpx import BUSY, OK, PING, QUERY, STATUS, SUBMIT, add, get, header, number, some


def connect(cluster, id, data=b""):
    connection = socket.create_connection(("127.0.0.1", cluster.client_port(id)), timeout=10)
    connection.sendall(data)
    return connection


def received(connection, count, seconds=10.0):
    """The first `count` bytes; fewer when the other end closes."""
    connection.settimeout(seconds)
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            break
        data += more
    return data


def is_closed(connection, seconds):
    """Whether the other end closes within that time, whatever it sends before."""
    connection.settimeout(0.1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if not connection.recv(1 << 16):
                return True
        except socket.timeout:
            pass
        except OSError:
            return True
    return False


@scenario
def unfinished_messages(run):
    """Messages of 4 MiB that are never finished hold no more than `client_input`, and in the end nothing."""
    cluster = run.cluster(replicas=1, limits={"client_input": "16MiB", "message_s": 2}).start_all()
    process, link = cluster.processes[0], cluster.link(0)
    link.call(PING)
    before = process.anonymous_memory()
    for size, count in ((4 * MIB - 100, 60), (100_000, 250)):
        half = greeting() + ready() + frame(bytes(size), 0, size + 50)
        kept, most, slowest = [], 0, 0.0
        for n in range(count):
            connection = connect(cluster, 0)
            kept.append(connection)
            try:
                connection.sendall(half)
            except OSError:
                pass
            if n % 10 == 0:
                begin = time.monotonic()
                link.call(PING, b"x")
                slowest = max(slowest, time.monotonic() - begin)
                most = max(most, process.anonymous_memory() - before)
        run.check(most < 64 * MIB, f"{count} messages of {size} bytes hold {most / MIB:.1f} MiB")
        run.check(all(is_closed(connection, 15) for connection in kept), "none of them stays")
        after = lambda: process.anonymous_memory() - before
        eventually(lambda: after() < 8 * MIB, "the memory goes back to the system", 30)
        print(f"{count} messages of {size} bytes: at most {most / MIB:.1f} MiB more, in the end {after() / MIB:.1f}; "
              f"the slowest PING meanwhile took {slowest * 1000:.0f} ms")
    run.reply(link.call(PING, b"x" * MIB), "a large message of one who ends it", status=OK)


@scenario
def long_commands(run):
    """Commands, and whatever comes before a handshake is over, are cut off at 512 bytes, and cost nobody anything."""
    cluster = run.cluster(replicas=1).start_all()
    link = cluster.link(0)
    link.call(PING)
    # Properties whose names are no UTF-8.
    rest = (b"\xff" * 256 + bytes(4)) * ((4 * MIB - 100) // 260)
    slowest = 0.0
    for data in (greeting() + forgery.command(b"READY", rest), greeting() + ready() + forgery.command(b"PING", rest),
                 greeting() + ready() + frame(b"", 1) + forgery.command(b"PING", rest)):
        connections = [connect(cluster, 0) for _ in range(12)]
        for connection in connections:
            try:
                connection.sendall(data)
            except OSError:
                pass
            begin = time.monotonic()
            link.call(PING)
            slowest = max(slowest, time.monotonic() - begin)
        run.check(all(is_closed(connection, 10) for connection in connections), "they are dropped")
    print(f"the slowest PING meanwhile took {slowest * 1000:.1f} ms")
    run.check(slowest < 2, f"a PING took {slowest:.2f} s")


@scenario
def idle_crowd(run):
    """More idle connections than there are places: others are served, and those who wait for an answer keep their
    place.
    """
    cluster = run.cluster(replicas=3, limits={"silence_s": 2})
    cluster.run_prefix = lambda id: ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
    cluster.start_all()
    leader = cluster.leader()
    waiting = cluster.link(leader)
    # Of ZMTP 3.0, which knows no heartbeats.
    crowd = [connect(cluster, leader, greeting((3, 0)) + ready()) for _ in range(150)]
    late = cluster.link(leader)
    begin = time.monotonic()
    run.reply(late.call(PING, b"x", timeout=20), "who comes late", status=OK, body=b"x")
    print(f"served after {time.monotonic() - begin:.1f} s")
    run.reply(waiting.call(SUBMIT, add(b"crowd", 1), timeout=20), "who was there before", status=OK)
    # Of ZMTP 3.1, which are asked, and do not answer.
    silent = [connect(cluster, leader, greeting() + ready()) for _ in range(20)]
    run.check(all(is_closed(connection, 15) for connection in silent), "who is silent is dropped")
    run.reply(waiting.call(PING, b"y", timeout=20), "who answers PINGs stays", status=OK)
    for connection in crowd:
        connection.close()


@scenario
def shares(run):
    """One client cannot take all of `max_outstanding`: there is room for another's request."""
    for kind in ("router", "libzmq-router"):
        cluster = run.cluster(protocol={"suspect_ms": 3000}, client={"max_outstanding": 64, "socket": kind},
                              name=f"e2e-{kind}").start_all()
        leader, others = cluster.leader(), cluster.followers()
        greedy, modest = [cluster.link(leader, "dealer") for _ in range(2)]
        for link in (greedy, modest):
            link.call(PING)
        cluster.kill9(*others)
        for n in range(1, 101):
            greedy.send_frames([header(SUBMIT, sequence=n), add(b"share", 1)])
        refused = [mpx.decode(greedy.receive_frames()[1:]) for _ in range(68)]
        run.check(all(reply.status == BUSY for reply in refused),
                  f"{kind}: beyond its share it is told BUSY: {refused[:3]}")
        run.equal({reply.sequence for reply in refused}, set(range(33, 101)), f"{kind}: one alone has half of the room")
        modest.send_frames([header(SUBMIT, sequence=1), add(b"share", 1)])
        eventually(lambda: cluster.status(leader)["outstanding"] == 33, f"{kind}: another finds room")
        cluster.start(*others)
        answers = [mpx.decode(greedy.receive_frames(30)[1:]) for _ in range(32)]
        run.equal({reply.sequence for reply in answers}, set(range(1, 33)), f"{kind}: what was admitted is answered")
        run.check(mpx.decode(modest.receive_frames(30)[1:]).status != BUSY, f"{kind}: and so is the other's")
        cluster.settle()
        # What is answered is counted no more.
        for n in range(200):
            run.reply(greedy.call(SUBMIT, add(b"share", 1), timeout=30), "one after the other", status=OK)
        cluster.stop(*cluster.ids)


OLD_GREETING = b"\xff" + bytes(8) + b"\x7f\x01\x03"


@scenario
def foreign_stacks(run):
    """Probes, ZMTP 2.0, and a READY that tells no type, at each kind of socket."""
    for kind in ("router", "libzmq-router", "rep"):
        cluster = run.cluster(replicas=1, client={"socket": kind}, name=f"e2e-{kind}").start_all()
        for type in (zmq.REQ, zmq.DEALER):
            prober = mpx.context.socket(type)
            prober.setsockopt(zmq.PROBE_ROUTER, 1)
            prober.setsockopt(zmq.LINGER, 0)
            prober.connect(cluster.endpoint(0))
            delimiter = [] if type == zmq.REQ else [b""]
            prober.send_multipart(delimiter + [header(PING, sequence=5), b"probed"])
            run.check(prober.poll(10_000), f"{kind}: an answer to who probes")
            reply = mpx.decode(prober.recv_multipart()[len(delimiter):])
            run.reply(reply, f"{kind}: to the request, not to the probe", status=OK, sequence=5, body=b"probed")
            prober.close()
        before = cluster.status(0)["rejected"]["malformed"]
        run.equal(before, 0, f"{kind}: a probe is no malformed request")

        request = message(b"", header(PING, sequence=7), b"old")
        reply = message(b"", struct.pack("<4sBBHQQQ", b"MPX1", OK, 0, 0, 0, 7, 0), b"old")
        old = connect(cluster, 0, OLD_GREETING + b"\x00\x00" + request)
        data = received(old, 14 + len(reply))
        run.check(data[:1] == b"\xff" and data[9:10] == b"\x7f" and data[14:] == reply,
                  f"{kind}: a client of ZMTP 2.0 is answered: {data!r}")
        # Type and identity, where a socket of libzmq says what it is: ROUTER, or REP.
        run.check(data[11:14] in (b"\x06\x00\x00", b"\x04\x00\x00"), f"{kind}: in ZMTP 2.0: {data[11:14]!r}")
        old.close()

        untyped = connect(cluster, 0, greeting() + b"\x04\x06\x05READY")
        received(untyped, 64 + 20)
        untyped.sendall(request)
        data = b""
        while not data.endswith(reply):
            more = received(untyped, 1)
            if not run.check(more, f"{kind}: a READY without a type is taken"):
                break
            data += more
        untyped.close()
        run.reply(cluster.link(0).call(STATUS), f"{kind}: it serves on", status=OK)
        cluster.stop(0)


@scenario
def paths(run):
    """The path of an ipc:// endpoint that a live replica listens at is not taken from it; one that a killed replica
    left is.
    """
    for kind in ("router", "libzmq-router"):
        first = run.cluster(replicas=1, ipc=True, client={"socket": kind}, name=f"e2e-{kind}").start_all()
        session = first.client()
        session.open()
        for port in ("client", "peer"):
            second = run.cluster(replicas=1, ipc=True, client={"socket": kind}, name=f"e2e-{kind}-{port}",
                                 prepare=False)
            taken = first.topology_endpoints(0)[port]
            own = second.topology_endpoints(0)
            second.topology_endpoints = lambda id, own=own, port=port, taken=taken: {**own, port: taken}
            second.write_topology()
            second.format(0)
            done = execute("run", "--topology", second.topology, "--id", "0")
            run.finished(done, f"{kind}: a second replica at the {port} path of the first", 2)
            run.check(f"cannot bind {taken}: Address already in use" in done.errors,
                      f"{kind}: and it says so: {done.errors!r}")
            run.reply(first.link(0).call(PING), f"{kind}: the first is still found", status=OK)
        first.kill9(0)
        first.start(0)
        run.reply(first.link(0).call(PING, timeout=20), f"{kind}: the path that it left when it was killed", status=OK)
        first.stop(0)


def descriptors(pid):
    """What a process has open, each with whether a program that it starts would inherit it."""
    for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
        try:
            what = os.readlink(f"/proc/{pid}/fd/{number}")
            with open(f"/proc/{pid}/fdinfo/{number}") as file:
                flags = next(line.split()[1] for line in file if line.startswith("flags:"))
        except OSError:
            continue
        yield number, what, not int(flags, 8) & os.O_CLOEXEC


@scenario
def descriptors_stay(run):
    """No descriptor but the standard ones goes to a program that a replica starts."""
    for kind in ("router", "libzmq-router"):
        cluster = run.cluster(client={"socket": kind}, name=f"e2e-{kind}").start_all()
        client = cluster.client().open()
        client.submit(add(b"n", 1))
        kept = [connect(cluster, id, greeting() + ready()) for id in cluster.ids]
        for id in cluster.ids:
            found = [f"{number} {what}" for number, what,
                     inherited in descriptors(cluster.processes[id].pid) if inherited and number > 2]
            run.equal(found, [], f"{kind}: descriptors that a program started by replica {id} would inherit")
        for connection in kept:
            connection.close()
        cluster.stop(*cluster.ids)


class Bench:
    """`mpaxos bench` beside what is tried."""

    def __init__(self, cluster, seconds):
        self.process = subprocess.Popen(
            [EXECUTABLE, "bench", "--topology", cluster.topology, "--clients", "20", "--connections", "4", "--keys",
             "1000",
             "--seconds", str(seconds), "--warmup", "0.5", "--interval", "0.25", "--request-timeout", "5", "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent)

    def rate(self, end=False):
        """Requests a second; ends it before its time where `end` says so."""
        if end:
            self.process.send_signal(2)
        output, errors = self.process.communicate(timeout=120)
        if self.process.returncode != 0:
            raise AssertionError(f"bench ended with code {self.process.returncode}: {errors.decode()}")
        found = json.loads(output)
        return found["rate"], found["errors"]


@scenario
def fuzz(run):
    """Forged frames at the ports of clients and peers beside a load: no replica ends, none bloats, and the load goes
    on. `--rounds N`: N thousand frames."""
    thousands = run.rounds or 60
    ports = os.environ.get("MPAXOS_FUZZ_PORTS", "client,peer").split(",")
    budget, slack = 16 * MIB, 64 * MIB
    for kind in ("router", "libzmq-router"):
        cluster = run.cluster(client={"max_request": "64KiB", "socket": kind},
                              limits={"client_input": "16MiB", "peer_input": "16MiB"}, name=f"e2e-{kind}").start_all()
        pids = {id: cluster.processes[id].pid for id in cluster.ids}
        alone, _ = Bench(cluster, 2).rate()
        before = {id: cluster.processes[id].anonymous_memory() for id in cluster.ids}
        bench, leader = Bench(cluster, 3600), cluster.leader()
        first = cluster.status(leader)["executed"]
        eventually(lambda: cluster.status(leader)["executed"] > first + 2000, f"{kind}: the load runs", 60)
        forger = forgery.Forger(run.random, cluster, ports)
        begin = time.monotonic()
        # Long enough for a rate, however few frames.
        forger.send(thousands * 500, seconds=2)
        seconds = time.monotonic() - begin
        beside, errors = bench.rate(end=True)
        cluster.check_running()
        run.equal({id: cluster.processes[id].pid for id in cluster.ids}, pids, f"{kind}: the processes")
        run.equal(errors, 0, f"{kind}: errors of the load")
        grown = lambda id: cluster.processes[id].anonymous_memory() - before[id]
        for id in cluster.ids:
            eventually(lambda: grown(id) <= 2 * budget + slack,
                       f"{kind}: memory of replica {id} stays within its bounds", 30)
        print(f"{kind}: {forger.frames} frames, {forger.bytes / MIB:.0f} MiB over {forger.connections} connections in {seconds:.1f} s; the load went on at "
              f"{beside / alone:.2f} of its rate; memory grew by {max(map(grown, cluster.ids)) / MIB:.1f} MiB",
              flush=True)
        run.reply(cluster.client().open().submit(add(b"after", 1)), f"{kind}: a client afterwards", status=OK,
                  body=some(number(1)))
        cluster.settle()
        cluster.stop(*cluster.ids)


if __name__ == "__main__":
    main()
