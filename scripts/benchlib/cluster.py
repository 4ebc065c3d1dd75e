"""Clusters of `mpaxos run` processes on this host, each with a topology, ports and pools of its own, and loads on
them.
"""

import ctypes
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Emulated persistent memory lies here; the msync mode is had on any other file system.
MEMORY = "/dev/shm"
MIB = 1 << 20


def give_up(message):
    """Ends the script with a message on standard error."""
    sys.exit(f"{os.path.basename(sys.argv[0])}: {message}")


def output(*command, **options):
    """What a command prints; a command that fails ends the script with what it said."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout
    except subprocess.CalledProcessError as error:
        give_up(f"{' '.join(command[:2])} failed: {error.stderr.strip()[-2000:]}")
    except subprocess.TimeoutExpired as error:
        give_up(f"{' '.join(command[:2])} did not end within {error.timeout:g} s")


def executable(path=None):
    """The path of `mpaxos`: the one given, else the release build of this checkout, brought up to date."""
    if path:
        return os.path.abspath(path)
    print("building mpaxos", file=sys.stderr, flush=True)
    build = ("swift", "build", "--package-path", ROOT, "-c", "release")
    output(*build, "--product", "mpaxos")
    return os.path.join(output(*build, "--show-bin-path").strip(), "mpaxos")


def die_with_parent():
    """In a child: killed when this process ends, however it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def start(*command, **options):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, **options)


def stop(process):
    process.kill()
    process.wait()


@functools.cache
def port_block():
    """Ports that other scripts which run meanwhile leave to this one, below the range from which the system takes those
    of outgoing connections; and what holds them: the port before them, bound as long as this process lives."""
    for first in range(15000, 31000, 500):
        lock = socket.socket()
        try:
            lock.bind(("127.0.0.1", first))
        except OSError:
            lock.close()
            continue
        return range(first + 1, first + 500), lock
    give_up("no block of ports is free from 15000 to 31000")


def free_ports(count):
    """The first of `count` free ports in a row."""
    block, _ = port_block()
    while True:
        first = random.choice(block[:-count])
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def temporary_folder(parent=MEMORY):
    return tempfile.mkdtemp(prefix="mpaxos-bench-", dir=parent if os.path.isdir(parent) else None)


def state_size(keys, value_size):
    """Of a state pool with room for that many values, and as much again."""
    return max(256, -(-keys * (value_size + 256) * 2 // MIB)) * MIB


class Cluster:
    """Replicas that run until the `with` block ends. `sections` are those of the topology file, as dictionaries.
    `keys`: "peers" for replicas with keys, "curve" for clients with keys as well."""

    def __init__(self, mpaxos, replicas=3, durability="emulated", disk="/var/tmp", keys=None, **sections):
        self.mpaxos = mpaxos
        self.size = replicas
        self.durability = durability
        self.folder = temporary_folder(MEMORY if durability == "emulated" else disk)
        self.topology = os.path.join(self.folder, "cluster.toml")
        self.processes = {}
        sections.setdefault("storage", {})["directory"] = os.path.join(self.folder, "pools")
        public = {id: self.make_key(f"replica-{id}") for id in range(replicas)} if keys else {}
        if keys == "curve":
            sections.setdefault("client", {})["security"] = "curve"
            with open(os.path.join(self.folder, "keys", "clients.toml"), "w") as file:
                public_key = json.dumps(self.make_key("operator"))
                print(f'[[client]]\nname = "operator"\nrole = "admin"\npublic_key = {public_key}', file=file)
        with open(self.topology, "w") as file:
            print(f'name = "{os.path.basename(self.folder)}"', file=file)
            for id in range(replicas):
                endpoints = [f"{key} = {json.dumps(value)}" for key, value in self.endpoints(id).items()]
                if id in public:
                    endpoints.append(f"public_key = {json.dumps(public[id])}")
                print(f"[[replica]]\nid = {id}", *endpoints, sep="\n", file=file)
            for name, section in sections.items():
                print(f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items()), sep="\n",
                      file=file)

    def make_key(self, name):
        """A file with a new key pair; its public half."""
        return output(self.mpaxos, "keys", "new", os.path.join(self.folder, "keys", name + ".key")).strip()

    def __enter__(self):
        try:
            for id in range(self.size):
                output(self.mpaxos, "format", "--topology", self.topology, "--id", str(id))
            for replica in [self.start(id) for id in range(self.size)]:
                replica.wait_until_ready()
            found = {status.get("durability") for status in self.status()}
            if found != {self.durability}:
                give_up(f"durability {self.durability} was asked for, {found} found: {self.folder} lies on another file system")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for id in list(self.processes):
            self.kill(id)
        shutil.rmtree(self.folder, ignore_errors=True)

    def endpoints(self, id):
        port = self.first_port + 2 * id
        return {"peer": f"tcp://127.0.0.1:{port}", "client": f"tcp://127.0.0.1:{port + 1}"}

    @functools.cached_property
    def first_port(self):
        return free_ports(2 * self.size)

    def run_command(self, id):
        return [self.mpaxos, "run", "--topology", self.topology, "--id", str(id)]

    def start(self, id):
        self.processes[id] = Replica(self, id)
        return self.processes[id]

    def kill(self, id):
        stop(self.processes.pop(id).process)

    def status(self):
        return json.loads(output(self.mpaxos, "status", "--topology", self.topology, "--json"))

    def leader(self):
        """The leader of the highest view that a replica is in, once somebody knows it: one that lags still names an
        earlier one.
        """
        end = time.monotonic() + 10
        while time.monotonic() < end:
            up = [entry for entry in self.status() if not entry.get("down")]
            highest = max(entry["view"] for entry in up)
            for entry in up:
                if entry["view"] == highest and entry["leader"] is not None:
                    return entry["leader"]
            time.sleep(0.05)
        give_up("the replicas do not agree on a leader")

    def memory(self):
        """Bytes of memory of each replica that are not pools: what is resident and anonymous."""
        found = {}
        for id, replica in self.processes.items():
            with open(f"/proc/{replica.process.pid}/status") as file:
                fields = dict(line.split(":", 1) for line in file)
            found[id] = int(fields["RssAnon"].split()[0]) * 1024
        return found

    def bench_command(self, seconds, warmup, **arguments):
        command = [self.mpaxos, "bench", "--topology", self.topology, "--seconds", str(seconds), "--warmup",
                   str(warmup), "--json"]
        for name, value in arguments.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        return command

    def bench(self, seconds, warmup=0.4, **arguments):
        """What `mpaxos bench` found; options by their names, `value_size=128` for `--value-size 128`."""
        for _ in range(4):
            found = json.loads(output(*self.bench_command(seconds, warmup, **arguments),
                                      timeout=seconds + warmup + 300))
            if found["errors"]:
                print(f"  {found['errors']} errors", file=sys.stderr)
            # The load ends by the clock, whatever the cluster does: if it did not, the machine stood still.
            if found["seconds"] < 1.1 * seconds + 0.5:
                return found
            print(f"  {found['seconds']:.1f} s in place of {seconds:g} s: the machine stood still; once more",
                  file=sys.stderr, flush=True)
        give_up("the machine stood still four times")

    def fill(self, keys, value_size):
        """Puts until 98 of 100 keys are there: four a key, since they are drawn at random."""
        done = 0
        while done < 4 * keys:
            done += int(self.bench(2, 0, clients=400, connections=4, keys=keys, value_size=value_size,
                                   seed=done + 1)["completed"])
            print(f"  filling {keys} keys of {value_size} B: {min(100, 25 * done // keys)}%", file=sys.stderr,
                  flush=True)


class Replica:
    """A run of `mpaxos run`."""

    def __init__(self, cluster, id):
        self.id = id
        self.begun = time.monotonic()
        self.ready_at = None
        self.log_path = os.path.join(cluster.folder, f"{id}.log")
        with open(self.log_path, "ab") as log:
            self.process = start(*cluster.run_command(id), stdout=subprocess.PIPE, stderr=log)
        self.waiter = threading.Thread(target=self._read, daemon=True)
        self.waiter.start()

    def _read(self):
        if self.process.stdout.readline():
            self.ready_at = time.monotonic()

    def wait_until_ready(self, deadline=60):
        """Seconds from the start of the process until it said that it is ready."""
        self.waiter.join(deadline)
        if self.ready_at is None:
            with open(self.log_path, errors="replace") as log:
                give_up(f"replica {self.id} does not get ready:\n" + log.read()[-2000:])
        return self.ready_at - self.begun
