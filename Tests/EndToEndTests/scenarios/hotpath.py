"""What the steady state costs in calls that it must not make, counted exactly: a replica under callgrind serves N
requests, then 2 N, and the difference is what the requests cost. Needs valgrind, and the release build (debug code
counts references for its checks).

    MPAXOS_EXECUTABLE=.build/release/mpaxos python3 hotpath.py no-allocation --threads fused
"""

import collections
import os
import re
import shutil
import struct
import subprocess
import tempfile

import harness
import mpx
from harness import eventually, scenario

REQUESTS = 1500
SESSIONS = 16
WARM_UP = 300
FORBIDDEN = ["swift_retain", "swift_release", "swift_allocObject", "swift_slowAlloc", "swift_bridgeObjectRetain",
             "malloc", "calloc", "realloc"]


class Profile:
    """Calls by (callee, caller) in a callgrind output file."""

    def __init__(self, path):
        self.calls = collections.Counter()
        names = {}
        caller, callee = "", ""
        with open(path, errors="replace") as file:
            for line in file:
                kind, _, value = line.rstrip("\n").partition("=")
                if kind == "fn":
                    caller = self.name(names, value)
                elif kind == "cfn":
                    callee = self.name(names, value)
                elif kind == "calls":
                    self.calls[callee.split("@")[0], caller] += int(value.split()[0])

    @staticmethod
    def name(table, text):
        """Callgrind spells a name out once, as `(number) name`, and later gives the number."""
        number, spelled = re.match(r"\((\d+)\)(?: (.*))?$", text).groups()
        if spelled:
            table[number] = spelled
        return table.get(number, number)

    def count(self, function):
        return sum(calls for (callee, _), calls in self.calls.items() if callee == function)

    def callers(self, function):
        return collections.Counter({caller: calls for (callee, caller),
                                    calls in self.calls.items() if callee == function})

    def copies_by(self, part):
        """Calls of memcpy and memmove by functions whose names have this part."""
        return sum(calls for (callee, caller),
                   calls in self.calls.items() if re.search("mem(cpy|move)", callee) and part in caller)

    def count_like(self, *parts):
        """Of functions whose names have all these parts, mangled as they are."""
        return sum(calls for (callee, _), calls in self.calls.items() if all(part in callee for part in parts))


def pump(endpoint, requests):
    """Puts in a closed loop, several sessions over one DEALER."""
    socket = mpx.context.socket(mpx.zmq.DEALER)
    socket.linger = 0
    socket.connect(endpoint)

    def send(command, body=b"", session=0, sequence=0):
        socket.send_multipart([b"", mpx.header(command, session=session, sequence=sequence), body])

    def receive():
        if not socket.poll(120_000):
            raise AssertionError("no reply within 120 s")
        reply = mpx.decode(socket.recv_multipart()[1:])
        assert reply.status == mpx.OK, reply
        return reply

    key = b"key-000000000001"
    body = b"P" + struct.pack("<I", len(key)) + key + b"x" * 128
    for _ in range(SESSIONS):
        send(mpx.OPEN)
    for _ in range(SESSIONS):
        send(mpx.SUBMIT, body, receive().session, 1)
    for _ in range(requests - SESSIONS):
        reply = receive()
        send(mpx.SUBMIT, body, reply.session, reply.sequence + 1)
    for _ in range(SESSIONS):
        receive()
    socket.close()


def measure(run, executable, requests, directory):
    """The profile of a replica alone, from its start to its end, with so many requests between."""
    cluster = run.cluster(replicas=1)
    output = os.path.join(directory, f"callgrind.{requests}")
    process = subprocess.Popen(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", executable, "run", "--topology",
         cluster.topology, "--id", "0"],
        # Hashing with another seed each run would have the start of the process count a few references more or less.
        env={**os.environ, "SWIFT_DETERMINISTIC_HASHING": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=harness.die_with_parent)
    run.cleanup.callback(process.kill)
    line = process.stdout.readline().decode()
    run.check(line.startswith("replica 0 ready"), f"a replica under valgrind gets ready, it said {line!r}")
    pump(cluster.endpoint(0), WARM_UP + requests)
    process.terminate()
    run.check(process.wait(120) == 0, "a replica under valgrind ends cleanly")
    eventually(lambda: os.path.getsize(output) > 0, "callgrind writes its profile")
    return Profile(output)


@scenario
def no_allocation(run):
    if shutil.which("valgrind") is None:
        raise AssertionError("there is no valgrind: scripts/setup installs it")
    directory = tempfile.mkdtemp(prefix="mpaxos-hotpath-")
    run.cleanup.callback(shutil.rmtree, directory)
    # Valgrind 3.19 cannot read the debugging information that Swift writes.
    executable = os.path.join(directory, "mpaxos")
    subprocess.check_call(["strip", "--strip-debug", "-o", executable, harness.EXECUTABLE])
    once = measure(run, executable, REQUESTS, directory)
    twice = measure(run, executable, 2 * REQUESTS, directory)
    for function in FORBIDDEN:
        each = (twice.count(function) - once.count(function)) / REQUESTS
        print(f"{function}: {each:.3f} a request")
        # Not quite nothing: what goes with time and not with requests (a digest, a status line) differs between two
        # runs.
        most = (twice.callers(function) - once.callers(function)).most_common(3)
        run.check(each < 0.02, f"{function} is called {each:.3f} times a request, most by {most}")
    # Neither moves bytes of its own: what they copied would be the core, all of it, at each look (see `InPlace`).
    for function in ("6EngineC4poll", "6EngineC12nextDeadline"):
        each = (twice.copies_by(function) - once.copies_by(function)) / REQUESTS
        run.check(each < 0.02, f"{function} copies {each:.3f} times a request")
    puts = (twice.count_like("RouterPort", "reply") - once.count_like("RouterPort", "reply")) / REQUESTS
    run.check(0.9 < puts < 1.1, f"the profiles count what they should: a reply is sent {puts:.3f} times a request")


if __name__ == "__main__":
    harness.main()
