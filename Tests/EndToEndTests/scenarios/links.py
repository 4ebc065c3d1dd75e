"""Replicas on links that carry little: what they send goes over the links once, nobody is deposed for what waits there,
and what waits takes little memory. Nothing is timed. Takes root, for network namespaces, and the kernel's tbf.

    MPAXOS_EXECUTABLE=.build/release/mpaxos python3 links.py slow-link
"""

import os
import sys
import threading

import harness
import mpx
from harness import Skipped, scenario

sys.path.insert(0, os.path.join(harness.ROOT, "scripts"))
from benchlib import network
from benchlib.network import Network, Shape

MIB = 1 << 20
# A load that takes a second a round if all goes well may take much longer on a busy machine.
PATIENCE = 120.0
OVERHEAD = 1.3
MEMORY = 100 * MIB


class LinkedCluster(harness.Cluster):
    """Each replica in a namespace of its own."""

    def __init__(self, run, shape, largest):
        if why := network.lacking():
            raise Skipped(why)
        self.network = run.cleanup.enter_context(Network(3, shape))
        # The threads of a context connect, from the namespace in which they began.
        mpx.context = mpx.zmq.Context()
        super().__init__(
            run, storage={"log_size": max(64 * MIB, 16 * largest), "state_size": 256 * MIB},
            client={"max_request": max(MIB, largest + 64)})

    def endpoint(self, id):
        return network.endpoints(id)["client"]

    def topology_endpoints(self, id):
        return network.endpoints(id)

    def run_prefix(self, id):
        return self.network.replicas[id].prefix()


class Sender(threading.Thread):
    """A client that puts one value after the other, each once: what is not acknowledged at the first try is an
    error.
    """

    def __init__(self, endpoint, number, puts, size):
        super().__init__(daemon=True)
        self.endpoint, self.number, self.puts, self.size = endpoint, number, puts, size
        self.acknowledged = 0
        self.error = None

    def run(self):
        try:
            with mpx.Link(self.endpoint) as link:
                session = link.call(mpx.OPEN, sequence=1, timeout=PATIENCE).session
                for sequence in range(1, self.puts + 1):
                    body = mpx.put(b"key of %d" % self.number, bytes([sequence % 256]) * self.size)
                    reply = link.call(mpx.SUBMIT, body, session=session, sequence=sequence, timeout=PATIENCE)
                    if reply.status != mpx.OK:
                        raise AssertionError(reply)
                    self.acknowledged += 1
        except Exception as error:
            self.error = f"client {self.number}: {error!r}"


class Watch:
    """What a load does to a cluster, from here on."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.leader = cluster.leader()
        self.idle = {id: network.own_memory(cluster.processes[id].pid) for id in cluster.ids}
        self.most = dict.fromkeys(self.idle, 0)
        self.before = {id: network.metrics(id) for id in cluster.ids}
        self.sent_before = cluster.network.sent(self.leader)["wire"]

    def until_done(self, *senders):
        for sender in senders:
            sender.start()
        for sender in senders:
            while sender.is_alive():
                self.look()
                sender.join(0.3)
        self.look()

    def look(self):
        for id in self.cluster.ids:
            used = network.own_memory(self.cluster.processes[id].pid) - self.idle[id]
            self.most[id] = max(self.most[id], used)

    def check(self, senders, due):
        """All was acknowledged, and the leader's link carried little more than the bytes that were due."""
        run = self.cluster.run
        for sender in senders:
            run.check(sender.error is None, sender.error)
            run.equal(sender.acknowledged, sender.puts, f"acknowledged puts of client {sender.number}")
        for id in self.cluster.ids:
            now = network.metrics(id)
            for name in ("elections_total", "proposals_resent_total"):
                run.equal(now[name], self.before[id][name], f"{name} of replica {id}")
            used = self.most[id]
            run.check(used <= MEMORY,
                      f"replica {id} takes {used / MIB:.0f} MiB more under load, at most {MEMORY // MIB} expected")
        # A quorum acknowledges: what is due to the other follower may be on its way still.
        self.cluster.settle()
        share = (self.cluster.network.sent(self.leader)["wire"] - self.sent_before) / due
        run.check(share < OVERHEAD, f"{share:.2f} bytes were sent for each that was due, less than {OVERHEAD} expected")
        print(f"{share:.2f} bytes sent a byte due, at most {max(self.most.values()) / MIB:.0f} MiB more memory")


def load(run, shape, clients, puts, size):
    cluster = LinkedCluster(run, shape, size).start_all()
    watch = Watch(cluster)
    senders = [Sender(cluster.endpoint(watch.leader), number, puts, size) for number in range(clients)]
    watch.until_done(*senders)
    # Each of two followers takes all.
    watch.check(senders, 2 * clients * puts * size)


@scenario
def slow_link(run):
    """Large values on 100 Mbit a second: some seconds' worth of them."""
    load(run, Shape(rate=100e6), clients=4, puts=10, size=1_000_000)


@scenario
def slower_link(run):
    """Many clients on 10 Mbit a second: what they have under way takes the link a second."""
    load(run, Shape(rate=10e6), clients=64, puts=6, size=8192)


@scenario
def large_beside_small(run):
    """While a value that takes the link seconds is on its way, others go by."""
    size, least = 16_000_000, 10
    cluster = LinkedCluster(run, Shape(rate=100e6), size).start_all()
    watch = Watch(cluster)
    large = Sender(cluster.endpoint(watch.leader), 0, 2, size)
    small = Small(cluster.endpoint(watch.leader), large)
    watch.until_done(large, small)
    run.check(small.error is None, small.error)
    print(f"small puts answered beside each large one: {small.beside}")
    run.check(min(small.beside) >= least,
              f"at least {least} small puts are answered beside each large one, of {small.beside}")
    watch.check([large], 2 * large.puts * size)


class Small(Sender):
    """Small values for as long as another client puts its large ones; counts those answered beside each of them."""

    def __init__(self, endpoint, large):
        super().__init__(endpoint, 1, 0, 128)
        self.large = large
        self.beside = [0] * large.puts

    def run(self):
        try:
            with mpx.Link(self.endpoint) as link:
                while self.large.is_alive():
                    at = self.large.acknowledged
                    reply = link.call(mpx.SUBMIT, mpx.put(b"small", b"v" * self.size), timeout=PATIENCE)
                    if reply.status != mpx.OK:
                        raise AssertionError(reply)
                    if at == self.large.acknowledged < self.large.puts:
                        self.beside[at] += 1
        except Exception as error:
            self.error = f"client of small values: {error!r}"


if __name__ == "__main__":
    harness.main()
