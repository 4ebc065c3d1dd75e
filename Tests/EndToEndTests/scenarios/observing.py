"""What looks at a replica from outside, and what it says: HTTP, the log, standard output, signals. None of them may
cost it its service.
"""

import contextlib
import ctypes
import multiprocessing
import os
import random
import re
import resource
import signal
import socket
import time

import mpx
from harness import Process, eventually, main, scenario
from looks import connect, descriptors, everything, health
from mpx import put


# HTTP

@scenario
def http_bounds(run):
    """Large headers, bodies, slow and silent connections, crowds of them, and no descriptors left: each costs its
    connection at most.
    """
    cluster = run.cluster(http=True, limits={"silence_s": 3}).start_all()
    id = 0
    process = cluster.processes[id]
    # At another one, where no crowd takes their places.
    silent = [connect(cluster, 1, 25.0) for _ in range(3)]
    silent[1].sendall(b"GET /healthz HTTP/1.1\r\nHo")
    silent[2].sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
    silent_since = time.monotonic()
    begin = time.monotonic()

    for size in (16 << 10, 64 << 10, 1 << 20):
        for header in (b"X: " + b"a" * size, b"".join(b"X-%d: a\r\n" % n for n in range(size // 10)), b"a" * size):
            with connect(cluster, id) as link:
                with contextlib.suppress(ConnectionError):
                    link.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
                answer = everything(link)
                run.check(not answer.startswith(b"HTTP/1.1 200"),
                          f"headers of {size} bytes are refused: {answer[:80]!r}")
    took = time.monotonic() - begin
    run.check(took < 5, f"large headers are refused at once: {took:.1f} s")
    with connect(cluster, id) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 4000 + b"\r\n\r\n")
        run.check(link.recv(99).startswith(b"HTTP/1.1 200"), "a header of 4,000 bytes is none too many")
    for request, code in ((b"POST /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"404"),
                          (b"POST /healthz HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nabc", b"413"),
                          (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + (
                              b"1000\r\n" + b"a" * 4096 + b"\r\n") * 9, b"413"),
                          (b"nonsense\r\n\r\n", b"400")):
        with connect(cluster, id) as link:
            link.sendall(request)
            answer = link.recv(99)
            run.check(answer.startswith(b"HTTP/1.1 " + code), f"{request[:40]!r}: expected {code}, got {answer!r}")

    # Many requests at once, whose answers nobody reads: what waits is bounded.
    before = process.anonymous_memory()
    deaf = [connect(cluster, id) for _ in range(30)]
    for link in deaf:
        link.settimeout(0.2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            link.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 20000)
    grown = process.anonymous_memory() - before
    run.check(grown < 32 << 20, f"memory for answers that nobody reads: {grown >> 20} MiB")
    with connect(cluster, id) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\n\r\n" * 100)
        link.shutdown(socket.SHUT_WR)
        found = everything(link)
        run.check(found.count(b"HTTP/1.1 200 OK") >= 1, "a connection that is half closed is answered")

    # More connections than there may be: those that ask come before those that only hold.
    crowd = []
    for _ in range(300):
        crowd.append(connect(cluster, id))
    begin = time.monotonic()
    for _ in range(20):
        run.equal(health(cluster, id), (200, "ready\n"), "/healthz beside a crowd")
    took = time.monotonic() - begin
    run.check(took < 2, f"/healthz answers beside a crowd, 20 times in {took:.2f} s")
    held = len(descriptors(process))
    run.check(held < 150, f"{held} descriptors are open")
    for link in crowd + deaf:
        link.close()

    # No descriptor is left for a while.
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (max(map(int, descriptors(process))) + 1, limits[1]))
    waiting = [connect(cluster, id, 20.0) for _ in range(100)]
    for link in waiting:
        link.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
    with mpx.Link(cluster.endpoint(1)) as link:
        run.equal(link.call(mpx.PING).status, mpx.OK, "PING of another")
    time.sleep(0.3)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
    eventually(lambda: health(cluster, id, 2.0) == (200, "ready\n"),
               "/healthz comes back when there are descriptors again", 15)
    for link in waiting:
        link.close()

    # Those that asked nothing, or not to the end, were closed in their time.
    for link, heard, seconds in ((silent[2], b"ready\n", 3), (silent[0], b"", 10), (silent[1], b"", 10)):
        run.equal(everything(link)[-6:], heard, "what a silent connection hears")
        took = time.monotonic() - silent_since
        run.check(took > seconds - 1, f"a silent connection is closed after {seconds} s, not after {took:.1f} s")
    cluster.client().open().submit(put(b"k", b"v"))


@scenario
def http_port_in_use(run):
    """A port in use is tried again; no descriptor of HTTP outlives the process; a start leaves none behind."""
    cluster = run.cluster(http=True)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", cluster.ports[0][2]))
        squatter.listen(1)
        cluster.start_all()
        log = cluster.processes[0].log()
        run.check(re.search(r"no HTTP at .*Address already in use.*tried again", log),
                  f"the log says what is wrong: {log[-500:]}")
        cluster.client().open().submit(put(b"k", b"v"))
        time.sleep(2)
        run.equal(cluster.processes[0].log().count("no HTTP at"), 1, "lines about it")
    eventually(lambda: health(cluster, 0) == (200, "ready\n"), "HTTP is there when the port is free", 10)
    run.check("it listens now" in cluster.processes[0].log(), "and the log says so")
    with connect(cluster, 0) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        link.recv(99)
        for descriptor in descriptors(cluster.processes[0]):
            with contextlib.suppress(FileNotFoundError):
                name = os.readlink(f"/proc/{cluster.processes[0].pid}/fd/{descriptor}")
                with open(f"/proc/{cluster.processes[0].pid}/fdinfo/{descriptor}") as file:
                    flags = int(re.search(r"flags:\s+(\d+)", file.read()).group(1), 8)
                if name.startswith("socket:"):
                    run.check(flags & os.O_CLOEXEC, f"descriptor {descriptor} ({name}) is closed by an exec")


@scenario
def http_fuzz(run):
    """Requests as no client makes them, slow ones, floods: the cluster serves beside them, and /healthz answers within
    a second.
    """
    cluster = run.cluster(http=True).start_all()
    requests = run.rounds or 4000
    before = {id: cluster.processes[id].anonymous_memory() for id in cluster.ids}
    # Each a process of its own: threads of this one would wait for each other.
    ended, slowest, served = multiprocessing.Event(), multiprocessing.Value("d", 0.0), multiprocessing.Value("q", 0)
    watchers = [multiprocessing.Process(target=watch, args=(cluster, ended, slowest), daemon=True),
                multiprocessing.Process(target=serve, args=(cluster, ended, served), daemon=True)]
    fuzzers = [multiprocessing.Process(target=fuzz, args=(cluster, random.Random(run.random.random()), requests // 4),
                                       daemon=True)
               for _ in range(4)]
    for process in watchers + fuzzers:
        process.start()
    for process in fuzzers:
        process.join()
    ended.set()
    for process in watchers:
        process.join()
        run.equal(process.exitcode, 0, "how one that watches the cluster ends")
    run.check(served.value > 20, f"{served.value} commands were served meanwhile")
    cluster.check_running()
    run.check(slowest.value < 1.0, f"the slowest answer of /healthz took {slowest.value:.2f} s")
    for id in cluster.ids:
        eventually(lambda: health(cluster, id) == (200, "ready\n"), f"/healthz of replica {id} afterwards", 5)
        grown = cluster.processes[id].anonymous_memory() - before[id]
        run.check(grown < 64 << 20, f"replica {id} has grown by {grown >> 20} MiB")
    print(
        f"{requests} requests, {served.value} commands beside them, "
        f"/healthz took {slowest.value * 1000:.0f} ms at most", flush=True)


def serve(cluster, ended, served):
    client = mpx.Client(cluster.endpoints).open()
    while not ended.is_set():
        client.submit(put(b"k%d" % (served.value % 100), b"v"))
        served.value += 1
    client.close()


def watch(cluster, ended, slowest):
    while not ended.is_set():
        for id in cluster.ids:
            begin = time.monotonic()
            try:
                answered = health(cluster, id)[0] in (200, 503)
            except OSError:
                answered = False
            slowest.value = max(slowest.value, time.monotonic() - begin if answered else float("inf"))
        time.sleep(0.05)


SEEDS = [
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n", b"GET /healthz HTTP/1.0\r\n\r\n",
    b"GET /status?a=b HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", b"HEAD /healthz HTTP/1.1\r\n\r\n",
    b"POST /status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: r\r\n\r\n",
    b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
    b"GET /healthz HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /healthz HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"GET http://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
]


def mutated(rng):
    text = bytearray(b"".join(rng.choice(SEEDS) for _ in range(rng.choice((1, 1, 1, 2, 40)))))
    for _ in range(rng.choice((0, 0, 1, 3, 20))):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            text[at:at + rng.randrange(9)] = b""
        elif kind == 1:
            text[at:at] = rng.choice((b"\r\n", b"\n", b"\0", b" ", b":", b"Content-Length: -1\r\n",
                                      b"Content-Length: 99999999999999999999\r\n",
                                      b"Transfer-Encoding: chunked, chunked\r\n", b"A" * 9000, b"A: b\r\n" * 80,
                                      b"\xff\xfe"))
        elif kind == 2:
            text[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(30)))
        elif text:
            text[at % len(text)] ^= 1 << rng.randrange(8)
    return bytes(text)


def fuzz(cluster, rng, requests):
    """So many requests, most of them over connections of their own."""
    held = []
    for number in range(requests):
        if len(held) > 100:
            for link in held:
                link.close()
            held.clear()
        with contextlib.suppress(OSError):
            link = connect(cluster, rng.choice(cluster.ids), 0.3)
            kind = rng.randrange(20)
            if kind < 3:
                # Holds the connection, having asked half of something, or nothing.
                held.append(link)
                link.sendall(mutated(rng)[:rng.randrange(40)])
                continue
            text = mutated(rng)
            cut = rng.randrange(len(text) + 1) if kind < 8 else len(text)
            link.sendall(text[:cut])
            if kind < 6:
                link.sendall(text[cut:])
            if kind == 8:
                link.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 2000)
            if kind == 9:
                link.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 300_000)
            if kind == 10:
                link.shutdown(socket.SHUT_WR)
            if kind == 11:
                # Reset, not closed.
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            elif kind > 11:
                link.settimeout(0.02)
                link.recv(4096)
            link.close()
    for link in held:
        link.close()


# The log and standard output

def full_pipe():
    """(reading end, writing end) of a pipe that takes not a byte more."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write, b"." * 4096):
            pass
    with contextlib.suppress(BlockingIOError):
        while os.write(write, b"."):
            pass
    os.set_blocking(write, True)
    return read, write


@scenario
def stalled_log(run):
    """Standard error and output whose reader stands still: the replicas serve, and stop when they are told."""
    cluster = run.cluster(http=True)
    pipe = {id: full_pipe() for id in cluster.ids}
    for id in cluster.ids:
        cluster.launch(id, stdout=pipe[id][1], stderr=pipe[id][1])
    client = cluster.client().open()
    for number in range(20):
        client.submit(put(b"k%d" % number, b"v"))
    for id in cluster.ids:
        eventually(lambda: health(cluster, id) == (200, "ready\n"), f"/healthz of replica {id}")
        run.equal(cluster.status(id)["ready"], True, "STATUS is answered")
    for number in (signal.SIGHUP, signal.SIGHUP):
        cluster.processes[0].signal(number)
    # One is read again: all that was said is there.
    read = pipe[1][0]
    os.set_blocking(read, False)
    found = bytearray()

    def reads():
        with contextlib.suppress(BlockingIOError):
            while part := os.read(read, 1 << 16):
                found.extend(part)
        return b"replica 1 ready" in found and b"durability" in found

    eventually(reads, "what waited is written when the reader reads again")
    begin = time.monotonic()
    cluster.stop(*cluster.ids)
    took = time.monotonic() - begin
    run.check(took < 8, f"SIGTERM stops replicas whose log is not read: {took:.1f} s")
    # A refusal, too, gets to its end.
    begin = time.monotonic()
    os.rename(cluster.pools(0)[1], cluster.pools(0)[1] + ".away")
    refused = cluster.launch(0, stderr=pipe[0][1])
    refused.expected_end = True
    run.equal(refused.wait(20), 3, "exit code of a replica that is refused")
    for ends in pipe.values():
        for end in ends:
            os.close(end)


@scenario
def stalled_cluster_log(run):
    """The same for `mpaxos cluster`, whose children log through it."""
    cluster = run.cluster(http=True)
    read, write = full_pipe()
    process = Process(["cluster", "--topology", cluster.topology, "--log-level", "trace"], cluster.directory, "stalled",
                      stderr=write)
    run.cleanup.callback(process.kill)
    eventually(process.output, "the cluster says that it serves", 60)
    client = cluster.client().open()
    for number in range(20):
        client.submit(put(b"k%d" % number, b"v"))
    process.signal(signal.SIGINT)
    run.equal(process.wait(25), 0, "exit code after ctrl-C")
    os.close(read)
    os.close(write)


@scenario
def lost_output(run):
    """Standard output that is full, closed, or a pipe that nobody reads: the replica runs, and writes to nothing else
    instead.
    """
    cluster = run.cluster(http=True, replicas=1)
    read, broken = os.pipe()
    os.close(read)
    with open("/dev/full", "wb") as full:
        for what, options in (("full", {"stdout": full, "stderr": full}),
                              ("broken", {"stdout": broken, "stderr": broken}),
                              ("closed", {"stdout": None, "stderr": None})):
            cluster.run_prefix = lambda id: ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"] if what == "closed" else []
            process = cluster.launch(0, **options)
            eventually(lambda: health(cluster, 0) == (200, "ready\n"), f"it runs with its output {what}")
            cluster.client().open().submit(put(b"k", b"v"))
            for descriptor in "12":
                target = os.readlink(f"/proc/{process.pid}/fd/{descriptor}")
                run.check("pool" not in target and not target.startswith("socket"),
                          f"descriptor {descriptor} with its output {what}: {target}")
            cluster.stop(0)
    os.close(broken)


# Health

@scenario
def cut_off(run):
    """A leader whose followers fall silent, and a replica whose lanes stand still: /healthz says that it is not to be
    counted on, and why.
    """
    cluster = run.cluster(http=True).start_all()
    leader = cluster.leader()
    followers = cluster.followers()
    for id in cluster.ids:
        run.equal(health(cluster, id), (200, "ready\n"), f"/healthz of replica {id}")
    for id in followers:
        cluster.processes[id].signal(signal.SIGSTOP)
    begin = time.monotonic()
    reasons = set()

    def unready():
        code, body = health(cluster, leader)
        if code == 503:
            reasons.add(body)
        return code == 503

    eventually(unready, "a leader without followers is not healthy", 10, pause=0.01)
    took = time.monotonic() - begin
    run.check(took < 3, f"it says so {took:.2f} s after its followers fell silent")
    run.check(all(body.startswith("not ready: ") and "majority" in body for body in reasons), f"it says why: {reasons}")
    run.equal(cluster.status(leader)["ready"], False, "ready in STATUS")
    for id in followers:
        cluster.processes[id].signal(signal.SIGCONT)
    for id in cluster.ids:
        eventually(lambda: health(cluster, id) == (200, "ready\n"), f"/healthz of replica {id} afterwards")
    # A follower whose leader falls silent, and nobody else is there.
    leader = cluster.leader()
    last, other = cluster.followers()
    for id in (leader, other):
        cluster.processes[id].signal(signal.SIGSTOP)
    eventually(lambda: health(cluster, last)[0] == 503, "a follower without its leader is not healthy", 10)
    for id in (leader, other):
        cluster.processes[id].signal(signal.SIGCONT)
    cluster.leader()


# Signals

@scenario
def signals(run):
    """SIGTERM at any moment of a start, SIGHUP, and a stop that cannot come to its end."""
    cluster = run.cluster(replicas=1, http=True)
    with open(cluster.topology, "rb") as file:
        text = file.read()
    # A file system that does not answer: the topology is a pipe.
    stuck, stuck_end = begin_at_pipe(run, cluster, "stuck")
    stuck.signal(signal.SIGTERM)
    asked = time.monotonic()
    frozen = freeze(run)
    early, early_end = begin_at_pipe(run, cluster, "early")
    early.signal(signal.SIGTERM)
    os.write(early_end, text)
    os.close(early_end)
    run.equal(early.wait(9), 0, "exit code after SIGTERM before the topology was read")
    codes = {}
    for delay in (0, 1, 2, 4, 8, 12, 16, 20, 30, 50, 80, 120, 200, 400):
        process, end = begin_at_pipe(run, cluster, f"after-{delay}")
        os.write(end, text)
        os.close(end)
        time.sleep(delay / 1000)
        process.signal(signal.SIGTERM)
        codes[delay] = process.wait(9)
    run.equal({delay: code for delay, code in codes.items() if code != 0}, {},
              "exit codes after SIGTERM, by milliseconds from the start on")
    cluster.start(0)
    process = cluster.processes[0]
    for _ in range(3):
        process.signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP is ignored" in process.log(), "the log says that SIGHUP does nothing")
    cluster.client().open().submit(put(b"k", b"v"))
    run.equal(stuck.wait(20), 1, "exit code of a replica that cannot stop")
    run.check(9 < time.monotonic() - asked, "it was given time")
    run.check("did not within 10 s" in stuck.log(), f"it says so: {stuck.log()}")
    os.close(stuck_end)
    if frozen:
        run.equal(frozen.wait(20), 1, "exit code of a replica whose lane stands still")
        run.check("did not within 10 s" in frozen.log(), f"it says so: {frozen.log()}")


def freeze(run):
    """The process of a replica one of whose lanes stands still, as at a disk that does not answer, and that was asked
    to stop. None where this process may not trace another."""
    cluster = run.cluster(replicas=1, name="frozen", http=True).start_all()
    process = cluster.processes[0]
    lane = {"fused": "replica"}.get(run.threads, "executor")
    tasks = f"/proc/{process.pid}/task"
    thread = next(int(task) for task in os.listdir(tasks) if open(f"{tasks}/{task}/comm").read() == lane + "\n")
    holder = multiprocessing.Process(target=hold, args=(thread,), daemon=True)
    holder.start()
    if not eventually(lambda: holder.exitcode is not None
                      or open(f"{tasks}/{thread}/stat").read().rpartition(")")[2].split()[0] == "t" and "held",
                      "the lane is held") == "held":
        print("no lane was frozen: this process may not trace another", flush=True)
        return None
    code, body = eventually(lambda: (found := health(cluster, 0))[0] == 503 and found,
                            "a replica whose lane stands still is not healthy", 10)
    run.check(
        re.fullmatch(rf"not ready: its lane {lane} has stood still for \d+\.\d+ s, as when a disk does not answer\n",
                     body), f"it says why: {body!r}")
    process.expected_end = True
    process.signal(signal.SIGTERM)
    return process


def hold(thread):
    """Stops one thread of another process until that ends."""
    trace = ctypes.CDLL(None, use_errno=True).ptrace
    trace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, interrupt, every_thread = 0x4206, 0x4207, 0x40000000
    if trace(seize, thread, None, None) != 0 or trace(interrupt, thread, None, None) != 0:
        return
    while not os.WIFEXITED(os.waitpid(thread, every_thread)[1]):
        pass


def begin_at_pipe(run, cluster, name):
    """A replica that reads its topology from a pipe, up to there; and the end of the pipe to write it to."""
    path = os.path.join(cluster.directory, f"{name}.toml")
    os.mkfifo(path)
    process = Process(["run", "--topology", path, "--id", "0"], cluster.directory, name)
    run.cleanup.callback(process.kill)
    return process, os.open(path, os.O_WRONLY)


if __name__ == "__main__":
    main()
