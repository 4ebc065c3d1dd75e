"""Replicas in network namespaces of their own, whose peers talk over links with a rate, a delay and loss, and whose
clients come over others that have no limit. Takes root.

The namespaces have no names: they and all in them are gone when the process that made them is, however it ends. Rates
are the kernel's tbf, on what each replica sends; delays, jitter and loss come from `link.c`, or from the kernel's
netem.
"""

import contextlib
import ctypes
import dataclasses
import http.client
import json
import mmap
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

from .cluster import Cluster, give_up, output, start, stop

FOLDER = os.path.dirname(os.path.abspath(__file__))
NEW_NETWORK = 0x40000000
PEER_PORT, CLIENT_PORT, HTTP_PORT, STREAM_PORT = 7100, 7200, 7300, 7400
CLIENTS_OWN = "10.0.1.100"
RATE_OF_PEER0 = ("qdisc", "add", "dev", "peer0", "root", "tbf", "rate")
# Headers of a packet that carries data: Ethernet, IPv4, TCP with timestamps. A TUN device has none of Ethernet.
ETHERNET, TCP_IP = 14, 52
PROC_CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"

libc = ctypes.CDLL(None, use_errno=True)


def client_address(id):
    return f"10.0.1.{id + 1}"


def peer_address(id):
    return f"10.0.2.{id + 1}"


def endpoints(id):
    """Those of a replica, as the topology names them."""
    return {
        "peer": f"tcp://{peer_address(id)}:{PEER_PORT}", "client": f"tcp://{client_address(id)}:{CLIENT_PORT}",
        "http": f"{client_address(id)}:{HTTP_PORT}",
    }


def metrics(id):
    """The values of a replica's /metrics, by name with labels, without the prefix; none if there is no answer."""
    try:
        connection = http.client.HTTPConnection(client_address(id), HTTP_PORT, timeout=10)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
    except (OSError, http.client.HTTPException):
        return {}
    return {name: float(value) for name, value in re.findall(r"^mpaxos_(\S+) (\S+)$", page, re.M)}


def own_memory(pid):
    """Bytes of memory of a replica's own: what is anonymous, pools and views of pools apart."""
    found, counts = 0, True
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            if line.startswith("Anonymous:"):
                found += int(line.split()[1]) * 1024 if counts else 0
            elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                counts = ".pool" not in line
    return found


def lacking(*others):
    """Why there can be no network here, in a sentence; None where there can. It names commands that are not there, also
    of `others`."""
    if os.geteuid() != 0:
        return "namespaces take root"
    for command in ("ip", "tc", "nsenter", *others):
        if shutil.which(command) is None:
            return f"there is no {command} on the PATH"
    try:
        namespace = Namespace()
        namespace.run("ip", "link", "add", "peer0", "type", "veth", "peer", "name", "other")
        namespace.run("ip", "link", "add", "peers", "type", "bridge")
        namespace.run("tc", *RATE_OF_PEER0, "1mbit", "burst", "16kb", "latency", "50ms")
        namespace.close()
    except (OSError, SystemExit) as error:
        return f"this kernel or container lacks what it takes: {error}"
    return None


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of the links between replicas: what each of them sends, to all others together, passes one. Bits a second (None:
    no limit), seconds, a share."""

    rate: float | None = None
    round_trip: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    queue: float = 0.05

    @property
    def plain(self):
        """Whether a rate is all there is to it."""
        return not (self.round_trip or self.jitter or self.loss)

    @property
    def queue_bytes(self):
        """What waits for the link at most."""
        return max(32 << 10, int((self.rate or 0) / 8 * self.queue))

    def __str__(self):
        words = [quantity(self.rate) + "bit" if self.rate else "no limit"]
        words += [f"{self.round_trip * 1000:g} ms"] if self.round_trip else []
        words += [f"+-{self.jitter * 1000:g} ms"] if self.jitter else []
        return " ".join(words + ([f"{self.loss:.2%} lost"] if self.loss else []))


def quantity(value):
    """A number with the letter of its thousands."""
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:g} {letter}"
    return f"{value:g} "


class Namespace:
    """A network namespace that lives as long as this process has it open."""

    def __init__(self):
        with open("/proc/thread-self/ns/net") as before:
            self._check(libc.unshare(NEW_NETWORK))
            self.file = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            self._check(libc.setns(before.fileno(), NEW_NETWORK))
        self.path = f"/proc/{os.getpid()}/fd/{self.file}"
        self.run("ip", "link", "set", "lo", "up")

    @staticmethod
    def _check(result):
        if result != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is in it, and so are sockets and threads that it makes meanwhile."""
        with open("/proc/thread-self/ns/net") as before:
            self._check(libc.setns(self.file, NEW_NETWORK))
            try:
                yield
            finally:
                self._check(libc.setns(before.fileno(), NEW_NETWORK))

    def prefix(self):
        """What to put before a command that is to run in it."""
        return ["nsenter", f"--net={self.path}"]

    def run(self, *command):
        return output(*self.prefix(), *command)

    def close(self):
        os.close(self.file)


class Network:
    """The namespaces of some replicas, and that of their clients, which the process is in within the `with` block."""

    def __init__(self, replicas, shape, congestion=None, netem=False):
        self.size, self.shape, self.congestion = replicas, shape, congestion
        self.netem = netem and not shape.plain
        self.emulated = not shape.plain and not netem
        self.stack = contextlib.ExitStack()
        self.counters = None

    def __enter__(self):
        try:
            self.clients = self._namespace()
            self.replicas = [self._namespace() for _ in range(self.size)]
            self._lay_links("clients", client_address)
            self.clients.run("ip", "address", "add", f"{CLIENTS_OWN}/24", "dev", "clients")
            if self.emulated:
                self._emulate()
            else:
                self._lay_links("peers", peer_address)
                self._shape()
            self.stack.enter_context(self.clients.entered())
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def _namespace(self):
        namespace = Namespace()
        self.stack.callback(namespace.close)
        with namespace.entered():
            if self.congestion:
                with open(PROC_CONGESTION, "w") as file:
                    file.write(self.congestion)
            if os.path.exists("/proc/sys/net/ipv6/conf/default/disable_ipv6"):
                with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
                    file.write("1")
        return namespace

    def congestion_control(self):
        with self.replicas[0].entered(), open(PROC_CONGESTION) as file:
            return file.read().strip()

    def _lay_links(self, name, address):
        """A bridge of that name in the clients' namespace, and from each replica's an interface to it: `peer0` or
        `client0`."""
        self.clients.run("ip", "link", "add", name, "type", "bridge")
        self.clients.run("ip", "link", "set", name, "up")
        for id, namespace in enumerate(self.replicas):
            mine, other = f"{name[:-1]}0", f"{name}{id}"
            namespace.run("ip", "link", "add", mine, "type", "veth", "peer", "name", other, "netns", self.clients.path)
            namespace.run("ip", "address", "add", f"{address(id)}/24", "dev", mine)
            namespace.run("ip", "link", "set", mine, "up")
            self.clients.run("ip", "link", "set", other, "master", name, "up")

    def _shape(self):
        shape = self.shape
        for id, namespace in enumerate(self.replicas):
            if shape.rate:
                # As much at once as goes in 2 ms: the kernel's clock must keep up.
                burst = max(16 << 10, int(shape.rate / 8 * 0.002))
                limits = ("burst", str(burst), "limit", str(shape.queue_bytes + burst))
                namespace.run("tc", *RATE_OF_PEER0, f"{shape.rate:.0f}bit", *limits)
            if self.netem:
                delay = ("delay", f"{shape.round_trip / 2 * 1e6:.0f}us", f"{shape.jitter * 1e6:.0f}us")
                loss = ("loss", f"{shape.loss:.4%}", "limit", "1000000")
                self.clients.run("tc", "qdisc", "add", "dev", f"peers{id}", "root", "netem", *delay, *loss)

    def _emulate(self):
        folder = tempfile.mkdtemp(prefix="mpaxos-links-")
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        program, counters = os.path.join(folder, "link"), os.path.join(folder, "counters")
        output("cc", "-O2", "-o", program, os.path.join(FOLDER, "link.c"))
        shape = self.shape
        times = [shape.round_trip / 2 * 1e6, shape.jitter * 1e6]
        arguments = [shape.rate or 0, shape.queue_bytes, *times, shape.loss, counters]
        for id, namespace in enumerate(self.replicas):
            arguments += [namespace.path, peer_address(id)]
        self.emulator = start(program, *map(str, arguments), stdout=subprocess.PIPE, text=True)
        self.stack.callback(stop, self.emulator)
        if self.emulator.stdout.readline() != "ready\n":
            give_up("the emulator of links does not start")
        for id, namespace in enumerate(self.replicas):
            namespace.run("ip", "address", "add", f"{peer_address(id)}/24", "dev", "peer0")
            namespace.run("ip", "link", "set", "peer0", "txqueuelen", "10000", "up")
        with open(counters, "rb") as file:
            self.counters = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def sent(self, id):
        """What a replica's link to its peers has carried so far: bytes on the wire, and bytes of TCP's streams, repeats
        included."""
        shown = self.replicas[id].run("ip", "-s", "-s", "-j", "link", "show", "dev", "peer0")
        link = json.loads(shown)[0]["stats64"]["tx"]
        # A large packet of TCP's counts once here, with one header, however many segments are made of it.
        stream = link["bytes"] - link["packets"] * (TCP_IP + (0 if self.emulated else ETHERNET))
        if self.emulated:
            wire, _, dropped, lost = struct.unpack_from("4Q", self.counters, 32 * id)
        else:
            queue = json.loads(self.replicas[id].run("tc", "-s", "-j", "qdisc", "show", "dev", "peer0"))[0]
            wire, dropped, lost = (queue["bytes"] if self.shape.rate else link["bytes"]), queue.get("drops", 0), 0
        return {"wire": wire, "stream": stream, "dropped": dropped, "lost": lost}

    def carries(self, id, seconds, warmup=1.0):
        """Bytes a second that plain TCP connections from a replica to each other one bring over the links, together."""
        others = [other for other in range(self.size) if other != id]
        received = dict.fromkeys(others, 0)
        ends = []
        block = bytes(256 << 10)

        def send(connection):
            with contextlib.suppress(OSError):
                while True:
                    connection.sendall(block)

        def receive(connection, other):
            buffer = bytearray(1 << 20)
            with contextlib.suppress(OSError):
                while size := connection.recv_into(buffer):
                    received[other] += size

        threads = []
        for other in others:
            with self.replicas[other].entered():
                listener = socket.create_server((peer_address(other), STREAM_PORT))
            with self.replicas[id].entered():
                sender = socket.create_connection((peer_address(other), STREAM_PORT), timeout=30)
            receiver, _ = listener.accept()
            sender.settimeout(None)
            listener.close()
            ends += [sender, receiver]
            threads += [threading.Thread(target=send, args=(sender,), daemon=True),
                        threading.Thread(target=receive, args=(receiver, other), daemon=True)]
        for thread in threads:
            thread.start()
        time.sleep(warmup)
        begun, before = time.monotonic(), sum(received.values())
        time.sleep(seconds)
        rate = (sum(received.values()) - before) / (time.monotonic() - begun)
        for end in ends:
            # What waits to be sent is forgotten: it would keep the link busy.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RD)
        for end in ends:
            end.close()
        for thread in threads:
            thread.join(5)
        return rate


class LinkedCluster(Cluster):
    """A cluster on such a network. `slow_msync` is a library to preload, and the milliseconds that it adds to each
    msync."""

    def __init__(self, mpaxos, network, *arguments, slow_msync=None, **options):
        self.network, self.slow_msync = network, slow_msync
        super().__init__(mpaxos, network.size, *arguments, **options)

    def endpoints(self, id):
        return endpoints(id)

    def run_command(self, id):
        slow = []
        if self.slow_msync:
            library, milliseconds = self.slow_msync
            slow = ["env", f"LD_PRELOAD={library}", f"SLOW_MSYNC_MS={milliseconds}"]
        return [*self.network.replicas[id].prefix(), *slow, *super().run_command(id)]

    def metrics(self, id):
        return metrics(id)

    def own_memory(self, id):
        return own_memory(self.processes[id].process.pid)
