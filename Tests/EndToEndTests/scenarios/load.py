"""Continuous load whose outcome can be checked to the last request, whatever is killed meanwhile."""

import struct
import threading
import time

import mpx
from mpx import OK, add, append, cas, get


class Worker(threading.Thread):
    """One session: adds to a counter that all share, appends to a log that all share, swaps a value of its own. It
    retries each request until it is done, through any replica, and notes every reply."""

    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load = load
        self.number = number
        self.done = []  # (kind, body, reply)
        self.reads = []  # (position, sum)
        self.swaps = 0
        self.error = None
        self.client = mpx.Client(load.endpoints, number, curves=[load.cluster.curve(id) for id in load.cluster.ids])

    def run(self):
        try:
            self.client.open()
            while not self.load.stopping.is_set():
                self.step()
        except Exception as error:
            self.error = f"worker {self.number}: {error!r}"
        self.load.stopped(self)

    def step(self):
        client, turn = self.client, len(self.done) % 4
        if turn == 0:
            kind, body = "add", add(b"sum", 1)
        elif turn == 1:
            kind, body = "append", append(b"log", b"%d.%d;" % (self.number, client.sequence + 1))
        elif turn == 2:
            kind, body = "cas", cas(self.own_key, self.own_value, b"%d" % (self.swaps + 1))
        else:
            kind, body = "append own", append(b"log of %d" % self.number, b"%d;" % (client.sequence + 1))
        reply = client.submit(body)
        self.done.append((kind, body, reply))
        if kind == "cas":
            self.swaps += 1
        if len(self.done) % 8 == 0:
            seen = client.query(get(b"sum"))
            self.reads.append((seen.position, reply.position, seen.body))
        self.load.progress()
        # Each goes to the next replica now and then, so that all serve.
        if len(self.done) % 16 == 0:
            client.at = (client.at + 1) % len(client.endpoints)

    @property
    def own_key(self):
        return b"own of %d" % self.number

    @property
    def own_value(self):
        return b"%d" % self.swaps if self.swaps else None


class Load:
    def __init__(self, run, cluster, workers=4):
        self.run, self.cluster = run, cluster
        self.endpoints = cluster.endpoints
        self.stopping = threading.Event()
        self.acknowledged = 0
        self.changed = threading.Condition()
        self.workers = [Worker(self, number) for number in range(workers)]
        for worker in self.workers:
            worker.start()

    def progress(self):
        with self.changed:
            self.acknowledged += 1
            self.changed.notify_all()

    def stopped(self, worker):
        with self.changed:
            self.changed.notify_all()

    def goes_on(self, count=20, deadline=60.0):
        """Waits until `count` more requests are acknowledged."""
        with self.changed:
            goal = self.acknowledged + count
            end = time.monotonic() + deadline
            while self.acknowledged < goal:
                for worker in self.workers:
                    if worker.error:
                        raise AssertionError(worker.error)
                self.cluster.check_running()
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"the load does not go on: {goal - self.acknowledged} of {count} requests missing after {deadline} s")
                self.changed.wait(min(left, 1))

    def finish(self):
        """Lets each worker finish its request, then checks everything."""
        self.stopping.set()
        for worker in self.workers:
            worker.join(90)
            self.run.check(not worker.is_alive(), f"worker {worker.number} does not finish")
            self.run.check(worker.error is None, worker.error)
        self.cluster.settle()
        self.check_replies()
        self.check_state()
        self.check_retries()

    def check_replies(self):
        run = self.run
        positions = {}
        for worker in self.workers:
            last = 0
            for kind, _, reply in worker.done:
                run.check(reply.status == OK, f"{kind} of worker {worker.number}: {reply}")
                run.check(reply.position > last,
                          f"positions of worker {worker.number} rise: {last}, then {reply.position}")
                run.check(reply.position not in positions, f"position {reply.position} is given twice")
                last = reply.position
                positions[reply.position] = (kind, reply)
                if kind == "cas":
                    run.check(reply.body[:1] == b"\x01", f"a swap of worker {worker.number} did not happen: {reply}")
        # In the order of positions the sums are 1, 2, 3 and so on: none lost, none twice.
        adds = [reply for _, (kind, reply) in sorted(positions.items()) if kind == "add"]
        sums = [struct.unpack("<q", reply.body[1:])[0] for reply in adds]
        run.equal(sums, list(range(1, len(sums) + 1)), "sums in the order of positions")
        self.adds = len(adds)
        for worker in self.workers:
            for position, own, body in worker.reads:
                expected = sum(1 for reply in adds if reply.position <= position)
                found = struct.unpack("<q", body[1:])[0] if body[:1] == b"\x01" else 0
                run.equal(found, expected, f"a read at position {position}")
                run.check(position >= own, f"a read at position {position} by one whose write was at {own}")

    def check_state(self):
        """What each replica has in the end, by its own state."""
        run = self.run
        for id in self.cluster.ids:
            link = self.cluster.link(id)

            def value(key):
                body = link.call(mpx.QUERY, get(key), flags=mpx.LOCAL).body
                return body[1:] if body[:1] == b"\x01" else None

            total = value(b"sum")
            run.equal(total and struct.unpack("<q", total)[0], self.adds or None, f"the sum at replica {id}")
            tokens = (value(b"log") or b"").split(b";")[:-1]
            run.equal(len(set(tokens)), len(tokens), f"each append once in the log at replica {id}")
            for worker in self.workers:
                mine = [token for token in tokens if token.startswith(b"%d." % worker.number)]
                wanted = [b"%d.%d" % (worker.number, reply.sequence) for kind, _,
                          reply in worker.done if kind == "append"]
                run.equal(mine, wanted, f"appends of worker {worker.number} at replica {id}")
                own = b"".join(b"%d;" % reply.sequence for kind, _, reply in worker.done if kind == "append own")
                run.equal(value(b"log of %d" % worker.number), own or None,
                          f"own appends of worker {worker.number} at replica {id}")
                run.equal(value(worker.own_key), worker.own_value, f"swaps of worker {worker.number} at replica {id}")

    def check_retries(self):
        for worker in self.workers:
            if not worker.done:
                continue
            kind, body, reply = worker.done[-1]
            for id in self.cluster.ids:
                with mpx.Link(self.cluster.endpoint(id), curve=self.cluster.curve(id)) as link:
                    again = link.call(mpx.SUBMIT, body, session=reply.session, sequence=reply.sequence)
                    self.run.equal(again.kept, reply.kept,
                                   f"a retry of the last {kind} of worker {worker.number} at replica {id}")
