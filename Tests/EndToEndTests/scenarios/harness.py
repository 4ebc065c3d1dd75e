"""Clusters of real processes for the end-to-end scenarios, and what runs a scenario.

Each script has scenarios: functions of a `Run`, marked `@scenario`. `python3 SCRIPT.py NAME [--threads fused|staged]`
runs one; exit code 0 when everything held, 77 when it was skipped for what this machine lacks, else 1 with what did not
hold and the ends of the replicas' logs. The executable is that of the environment variable MPAXOS_EXECUTABLE, else the
debug build of this package.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import mpx
from keyring import Keyring

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
EXECUTABLE = os.environ.get("MPAXOS_EXECUTABLE") or os.path.join(ROOT, ".build", "debug", "mpaxos")
SHARED_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
SKIPPED = 77


class Skipped(Exception):
    """This machine lacks what the scenario takes."""


def die_with_parent():
    """In a child: killed when this process ends, however it ends. Signals are as a shell would have them."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def eventually(condition, what, deadline=30.0, pause=0.02):
    """Polls until `condition()` is true, and returns what it was. An exception of the kinds that mean "not yet" counts
    as false.
    """
    end = time.monotonic() + deadline
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
        except (mpx.Silent, OSError, json.JSONDecodeError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}" + (f" (last: {last})" if last else ""))
        time.sleep(pause)


class Ports:
    """Free ports, outside of the range from which the system takes those of outgoing connections. Another scenario
    takes none of them, not even while its replica is down: each is held by a UDP socket of the same number."""

    held = {}

    @classmethod
    def take(cls):
        while True:
            port = random.randrange(15000, 32000)
            if port in cls.held:
                continue
            holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                holder.bind(("127.0.0.1", port))
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            except OSError:
                holder.close()
                continue
            cls.held[port] = holder
            return port


class Process:
    """A run of the executable, its output in files, or where `stdout` and `stderr` say. `prefix` is a command that runs
    another one in its place."""

    def __init__(self, arguments, directory, name, prefix=(), **options):
        self.output_path = os.path.join(directory, name + ".out")
        self.error_path = os.path.join(directory, name + ".log")
        with open(self.output_path, "wb") as output, open(self.error_path, "wb") as errors:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": errors, **options}
            self.popen = subprocess.Popen([*prefix, EXECUTABLE, *arguments], preexec_fn=die_with_parent, **streams)

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def output(self):
        with open(self.output_path, "rb") as file:
            return file.read().decode(errors="replace")

    def log(self):
        with open(self.error_path, "rb") as file:
            return file.read().decode(errors="replace")

    def wait(self, deadline=30.0):
        try:
            return self.popen.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process {self.pid} did not end within {deadline} s") from None

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)
            if number == signal.SIGSTOP:
                # On a busy machine threads run on for a while after the signal was sent.
                eventually(lambda: not self.running() or self._stands_still(), f"process {self.pid} stops", pause=0.001)

    def _stands_still(self):
        tasks = f"/proc/{self.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] != "T":
                    return False
        return True

    def kill(self):
        if self.running():
            self.popen.kill()
        self.popen.wait()

    def anonymous_memory(self):
        """Bytes of memory of its own, mapped pools not counted."""
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) * 1024


class Finished:
    """How a command that was waited for ended."""

    def __init__(self, code, output, errors):
        self.code, self.output, self.errors = code, output, errors

    def __str__(self):
        return f"exit code {self.code}, output {self.output!r}, errors {self.errors!r}"


def execute(*arguments, deadline=60.0, text=True):
    """Runs a command of the executable to its end."""
    done = subprocess.run(
        [EXECUTABLE, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline,
        preexec_fn=die_with_parent)
    output = done.stdout.decode(errors="replace") if text else done.stdout
    return Finished(done.returncode, output, done.stderr.decode(errors="replace"))


def toml(value):
    return json.dumps(value)


class Cluster:
    """Replicas on this host, made from one topology file. To be closed, which looks at how they end.

    `keys`: True for a cluster in which replicas and clients have keys, "peers" for one in which replicas alone have
    them. `http`: whether replicas serve it; `http_files`: the table [http]."""

    def __init__(self, run, replicas=3, ids=None, name="e2e", http=False, ipc=False, prepare=True, keys=False,
                 http_files=None, **sections):
        self.run = run
        self.name = name
        self.ids = ids or list(range(replicas))
        self.ipc = ipc
        self.directory = tempfile.mkdtemp(prefix="mpaxos-e2e-", dir=SHARED_MEMORY)
        self.topology = os.path.join(self.directory, f"{name}.toml")
        self.ports = {id: (Ports.take(), Ports.take(), Ports.take() if http else None) for id in self.ids}
        self.sections = {
            "storage": {"directory": os.path.join(self.directory, name), "log_size": "8MiB", "state_size": "32MiB"},
            "protocol": {},
            "client": {},
            "limits": {},
            "pipeline": {"threads": run.threads},
        }
        self.keys = Keyring(os.path.join(self.directory, "keys"), self.ids) if keys else None
        self.clients_have_keys = keys is True
        if self.clients_have_keys:
            self.sections["client"]["security"] = "curve"
        for section, values in {**sections, **({"http": http_files} if http_files else {})}.items():
            self.sections.setdefault(section, {}).update(values)
        self.processes = {}
        self.history = []
        self.write_topology()
        run.clusters.append(self)
        if prepare:
            for id in self.ids:
                self.format(id)

    def write_topology(self):
        lines = [f"name = {toml(self.name)}"]
        for id in self.ids:
            lines += ["", "[[replica]]", f"id = {id}"]
            lines += [f"{key} = {toml(value)}" for key, value in self.topology_endpoints(id).items()]
            if self.keys:
                lines += [f"public_key = {toml(self.keys.pinned[id])}"]
        for section, values in self.sections.items():
            lines += ["", f"[{section}]"] + [f"{key} = {toml(value)}" for key, value in values.items()]
        with open(self.topology, "w") as file:
            file.write("\n".join(lines) + "\n")

    # Where things are.

    def address(self, port):
        return f"ipc://{self.directory}/{port}" if self.ipc else f"tcp://127.0.0.1:{port}"

    def endpoint(self, id):
        return self.address(self.ports[id][1])

    def topology_endpoints(self, id):
        peer, client, http = self.ports[id]
        found = {"peer": self.address(peer), "client": self.address(client)}
        return {**found, "http": f"127.0.0.1:{http}"} if http else found

    @property
    def endpoints(self):
        return [self.endpoint(id) for id in self.ids]

    def peer_port(self, id):
        return self.ports[id][0]

    def client_port(self, id):
        return self.ports[id][1]

    def http(self, id):
        return f"http://127.0.0.1:{self.ports[id][2]}"

    def pools(self, id):
        folder = os.path.join(self.sections["storage"]["directory"], str(id))
        return os.path.join(folder, "acceptor.pool"), os.path.join(folder, "state.pool")

    # Processes.

    def run_prefix(self, id):
        return []

    def format(self, id):
        done = execute("format", "--topology", self.topology, "--id", str(id))
        if done.code != 0:
            raise AssertionError(f"format of replica {id}: {done}")

    def launch(self, id, **options):
        """Starts the process of a replica, and does not wait for it."""
        process = Process(
            ["run", "--topology", self.topology, "--id", str(id)], self.directory,
            f"{self.name}-{id}-{len(self.history)}", self.run_prefix(id), **options)
        process.id = id
        process.expected_end = False
        self.history.append(process)
        self.processes[id] = process
        return process

    def await_ready(self, id, deadline=60.0):
        """(view, leader) of the line by which it says that it is ready."""
        process = self.processes[id]

        def line():
            text = process.output()
            if not process.running():
                raise AssertionError(f"replica {id} ended with code {process.popen.returncode} before it was ready")
            return text if text.endswith("\n") else None

        text = eventually(line, f"replica {id} says it is ready", deadline)
        found = re.fullmatch(rf"replica {id} ready: view (\d+), leader (\d+)\n", text)
        if not found:
            raise AssertionError(f"replica {id} wrote to standard output: {text!r}")
        return int(found.group(1)), int(found.group(2))

    def start(self, *ids):
        for id in ids:
            self.launch(id)
        return [self.await_ready(id) for id in ids]

    def start_all(self):
        self.start(*self.ids)
        return self

    def kill9(self, *ids):
        for id in ids:
            self.processes[id].expected_end = True
            self.processes[id].signal(signal.SIGKILL)
        for id in ids:
            self.processes[id].popen.wait()

    def stop(self, *ids):
        for id in ids:
            self.processes[id].expected_end = True
            self.processes[id].signal(signal.SIGTERM)
        for id in ids:
            code = self.processes[id].wait(30)
            self.run.equal(code, 0, f"exit code of replica {id} after SIGTERM")

    def alive(self, id):
        return id in self.processes and self.processes[id].running()

    def check_running(self):
        """Nobody has ended who was not to."""
        for process in self.processes.values():
            if not process.expected_end and not process.running():
                raise AssertionError(f"replica {process.id} ended by itself with code {process.popen.returncode}")

    # Looking at them.

    def status(self, id, timeout=10.0):
        with mpx.Link(self.endpoint(id), curve=self.curve(id, "admin")) as link:
            reply = link.call(mpx.STATUS, timeout=timeout)
        if reply.status != mpx.OK:
            raise AssertionError(f"STATUS of replica {id}: {reply}")
        return json.loads(reply.body)

    def statuses(self):
        return {id: self.status(id) for id in self.ids if self.alive(id)}

    def leader(self, deadline=60.0):
        """The one on which all running replicas agree, itself included."""

        def agreed():
            found = self.statuses()
            leaders = {status["leader"] for status in found.values()}
            leader = leaders.pop() if len(leaders) == 1 else None
            return found.get(leader, {}).get("role") == "leader" and (leader,)

        return eventually(agreed, "all running replicas name one leader, which leads", deadline)[0]

    def followers(self):
        leader = self.leader()
        return [id for id in self.ids if id != leader and self.alive(id)]

    def settle(self, deadline=60.0):
        """Waits until all running replicas stand at one position with a digest of it; returns (position, digest)."""
        seen = {}

        def same():
            seen.clear()
            for id, status in self.statuses().items():
                seen[id] = (status["position"], status["digest"]["position"], status["digest"]["value"])
            if len({position for position, _, _ in seen.values()}) != 1:
                return None
            return all(position == digested for position, digested, _ in seen.values()) and dict(seen)

        found = eventually(same, f"digests at one position: {seen}", deadline)
        values = {value for _, _, value in found.values()}
        if len(values) != 1:
            raise AssertionError(f"replicas at one position differ: {found}")
        return next(iter(found.values()))[0], values.pop()

    def curve(self, id, key="writer"):
        """What a link to a replica takes where clients have keys: a `Curve`, else None. `key`: the name of a client, or
        a pair.
        """
        if not self.clients_have_keys or key is None:
            return None
        pair = self.keys.pairs[key] if isinstance(key, str) else key
        return mpx.Curve(pair.public, pair.secret, self.keys.replicas[id].public)

    def client(self, start=0, key="writer", **options):
        client = mpx.Client(self.endpoints, start, curves=[self.curve(id, key) for id in self.ids], **options)
        self.run.cleanup.callback(client.close)
        return client

    def link(self, id, kind="req", key="writer", **options):
        link = mpx.Link(self.endpoint(id), kind, curve=self.curve(id, key), **options)
        self.run.cleanup.callback(link.close)
        return link

    # The end.

    def tails(self, lines=25):
        text = []
        for process in self.history[-9:]:
            code = process.popen.poll()
            state = "running" if code is None else f"ended with code {code}"
            tail = process.log().splitlines()[-lines:]
            text.append(f"--- {os.path.basename(process.error_path)} ({state})\n" + "\n".join(tail))
        return "\n".join(text)

    def close(self):
        """Stops what runs; says so where a replica had ended by itself, or does not stop cleanly."""
        for process in self.history:
            if not process.running() and not process.expected_end:
                self.run.fail(f"replica {process.id} ended by itself with code {process.popen.returncode}")
        self.stop(*[id for id in self.ids if self.alive(id)])
        for process in self.history:
            if not process.expected_end or re.fullmatch(r"(replica \d+ ready: [^\n]*\n)?", process.output()):
                continue
            self.run.fail(f"replica {process.id} wrote to standard output: {process.output()!r}")

    def remove(self):
        for process in self.history:
            process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Run:
    """One run of one scenario: its options, what has failed, what is to be cleaned up."""

    def __init__(self, options):
        self.threads = options.threads
        self.rounds = options.rounds
        self.random = random.Random(options.seed)
        self.failures = []
        self.clusters = []
        self.cleanup = contextlib.ExitStack()

    def cluster(self, **options):
        return Cluster(self, **options)

    def folder(self, prefix):
        """An empty one, gone when the run ends."""
        path = tempfile.mkdtemp(prefix=f"mpaxos-e2e-{prefix}", dir=SHARED_MEMORY)
        self.cleanup.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def fail(self, message):
        self.failures.append(message)
        where = traceback.extract_stack()
        frame = next((frame for frame in reversed(where) if not frame.filename.endswith("harness.py")), where[0])
        print(f"FAILED {os.path.basename(frame.filename)}:{frame.lineno}: {message}", flush=True)

    def check(self, condition, message):
        """Notes a failure and goes on, so that one defect does not hide the next."""
        if not condition:
            self.fail(message)
        return bool(condition)

    def equal(self, found, expected, what):
        return self.check(found == expected, f"{what}: expected {short(expected)}, got {short(found)}")

    def reply(self, reply, what, **expected):
        """Compares the fields that are named; returns the reply."""
        wrong = [name for name, value in expected.items() if getattr(reply, name) != value]
        if wrong:
            wanted = ", ".join(f"{name} {short(expected[name])}" for name in wrong)
            self.fail(f"{what}: expected {wanted}; got {reply}")
        return reply

    def finished(self, done, what, code, output=None):
        self.check(done.code == code and (output is None or done.output == output),
                   f"{what}: expected exit code {code}" + (f" and output {output!r}" if output is not None
                                                           else "") + f"; got {done}")
        return done


def short(value):
    if isinstance(value, bytes) and len(value) > 120:
        return f"{value[:120]!r}... ({len(value)} bytes)"
    return repr(value)


SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("--threads", default="fused", choices=["fused", "staged", "auto"])
    parser.add_argument("--rounds", type=int, default=0, help="of kills and the like; 0: as many as suit a test run")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--limit", type=int, default=0, help="seconds after which a run counts as hanging")
    parser.add_argument("--lifeline", action="store_true", help="end, cleaned up, when standard input ends")
    options = parser.parse_args()
    # Whoever started this process may have blocked signals, which are inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if options.lifeline:
        threading.Thread(target=end_with_input, daemon=True).start()
    if not os.access(EXECUTABLE, os.X_OK):
        sys.exit(f"{EXECUTABLE} is no executable: build it, or name it in MPAXOS_EXECUTABLE")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    names = SCENARIOS if options.scenario == "all" else [options.scenario]
    codes = [run_one(name, options) for name in names]
    sys.exit(max(codes, key=[0, SKIPPED, 1].index))


def end_with_input():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def run_one(name, options):
    """The exit code. Whatever happens, processes and files are gone afterwards."""

    def interrupt(number, _):
        raise TimeoutError(f"the scenario took longer than its limit of {options.limit} s" if number == signal.SIGALRM
                           else "interrupted")

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(options.limit)
    run = Run(options)
    begin = time.monotonic()
    try:
        SCENARIOS[name](run)
        for cluster in run.clusters:
            cluster.close()
    except Skipped as error:
        print(f"{name} was skipped: {error}", flush=True)
        return SKIPPED
    except BaseException as error:
        run.failures.append(repr(error))
        traceback.print_exc(file=sys.stdout)
    finally:
        signal.alarm(0)
        if run.failures:
            print(f"{name}: {len(run.failures)} failures, seed {options.seed}")
            for cluster in run.clusters:
                print(cluster.tails())
        for cluster in run.clusters:
            cluster.remove()
        run.cleanup.close()
    held = "held" if not run.failures else "FAILED"
    print(f"{name} ({options.threads}): {held} after {time.monotonic() - begin:.1f} s", flush=True)
    return 1 if run.failures else 0
