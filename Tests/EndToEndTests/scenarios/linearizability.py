"""Concurrent histories of single registers, while leaders are killed or paused, checked for an order that explains them
(Wing and Gong).
"""

import math
import signal
import threading
import time

import mpx
from harness import main, scenario
from mpx import OK, QUERY, SUBMIT, get, put


def linearizable(history):
    """Whether some order of the operations, each between its beginning and its end, is that of a register.

    `history`: (begin, end, kind, value) with kind "put" or "get"; `end` infinite where the outcome is unknown: then the
    operation may have happened at any time after its beginning, or never. A search over the sets of operations that can
    have happened first, remembering those that led nowhere with the same value.
    """
    history = sorted(history)
    count = len(history)
    needed = sum(1 << n for n, (_, end, _, _) in enumerate(history) if end != math.inf)
    seen = set()
    stack = [(0, None)]
    while stack:
        done, value = stack.pop()
        if done & needed == needed:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        # An operation may be next when none that is missing ended before it began.
        first_end = math.inf
        for n in range(count):
            if done >> n & 1:
                continue
            begin, end, kind, operand = history[n]
            if begin > first_end:
                break
            first_end = min(first_end, end)
        for n in range(count):
            if done >> n & 1:
                continue
            begin, end, kind, operand = history[n]
            if begin > first_end:
                break
            if kind == "put":
                stack.append((done | 1 << n, operand))
            elif operand == value:
                stack.append((done | 1 << n, value))
    return False


def checker_works():
    """The checker finds known histories right, and known ones wrong."""
    inf = math.inf
    good = [
        [(0, 1, "put", 1), (2, 3, "get", 1)],
        [(0, 5, "put", 1), (1, 2, "get", None), (3, 4, "get", 1)],
        [(0, inf, "put", 1), (1, 2, "get", None), (3, 4, "get", 1)],
        [(0, inf, "put", 1), (1, 2, "get", None), (3, 4, "get", None)],
        [(0, 9, "put", 1), (0, 9, "put", 2), (1, 2, "get", 2), (3, 4, "get", 1)],
    ]
    bad = [
        [(0, 1, "put", 1), (2, 3, "get", None)],
        [(0, 5, "put", 1), (1, 2, "get", 1), (3, 4, "get", None)],
        [(0, 1, "put", 1), (2, 3, "put", 2), (4, 5, "get", 1)],
        [(0, 9, "put", 1), (0, 9, "put", 2), (1, 2, "get", 2), (3, 4, "get", 1), (5, 6, "get", 2)],
        [(0, inf, "put", 1), (1, 2, "get", 1), (3, 4, "get", None)],
    ]
    return all(map(linearizable, good)) and not any(map(linearizable, bad))


class Registers:
    """Clients that put and get a few keys through all replicas, with the times at which each operation began and
    ended.
    """

    def __init__(self, cluster, random, clients, keys):
        self.cluster = cluster
        self.keys = [b"register %d" % n for n in range(keys)]
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.history = {key: [] for key in self.keys}
        self.errors = []
        self.unknown = 0
        self.threads = [threading.Thread(target=self.work, args=(n, random.random()), daemon=True)
                        for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def note(self, key, begin, end, kind, value):
        with self.lock:
            self.history[key].append((begin, end, kind, value))

    def count(self):
        with self.lock:
            return sum(map(len, self.history.values()))

    def work(self, number, seed):
        import random

        choose = random.Random(seed)
        client = mpx.Client(self.cluster.endpoints, number, patience=0.6)
        try:
            client.open()
            turn = 0
            while not self.stopping.is_set():
                turn += 1
                key = choose.choice(self.keys)
                value = b"%d.%d" % (number, turn)
                client.at = choose.randrange(len(client.endpoints))
                begin = time.monotonic()
                what = choose.random()
                if what < 0.35:
                    client.submit(put(key, value))
                    self.note(key, begin, time.monotonic(), "put", value)
                elif what < 0.5:
                    self.put_once(client, key, value, begin)
                else:
                    body = (client.query(get(key)) if what < 0.9 else client.submit(get(key))).body
                    self.note(key, begin, time.monotonic(), "get", body[1:] if body[:1] == b"\x01" else None)
        except Exception as error:
            self.errors.append(f"client {number}: {error!r}")
        finally:
            client.close()

    def put_once(self, client, key, value, begin):
        """Without a session and without a retry: what has no answer may have happened, or may yet."""
        try:
            reply = client.link(client.at).call(SUBMIT, put(key, value), timeout=0.6)
        except mpx.Silent:
            reply = None
        if reply is not None and reply.status == OK:
            self.note(key, begin, time.monotonic(), "put", value)
        elif reply is None or reply.status == mpx.NO_LEADER:
            self.unknown += 1
            self.note(key, begin, math.inf, "put", value)

    def finish(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(90)
        return self.history


@scenario
def registers(run):
    run.check(checker_works(), "the checker itself")
    cluster = run.cluster().start_all()
    load = Registers(cluster, run.random, clients=5, keys=4)
    for round in range(run.rounds or 5):
        wait_for(load, load.count() + 60)
        victim = cluster.leader()
        process = cluster.processes[victim]
        if round % 2:
            # It goes on later, believing that it leads, with requests that it had taken in before.
            process.signal(signal.SIGSTOP)
            wait_for(load, load.count() + 20)
            process.signal(signal.SIGCONT)
        else:
            cluster.kill9(victim)
            wait_for(load, load.count() + 20)
            cluster.start(victim)
    history = load.finish()
    run.equal(load.errors, [], "clients")
    cluster.settle()
    for key, operations in history.items():
        print(f"{key.decode()}: {len(operations)} operations")
        run.check(len(operations) > 20, f"{key} has a history")
        if not run.check(linearizable(operations), f"the history of {key} is linearizable"):
            for operation in sorted(operations):
                print("   ", operation)
        # A read that is changed must be found out, or the check above says nothing.
        reads = [n for n, (_, _, kind, value) in enumerate(operations) if kind == "get" and value is not None]
        forged = list(operations)
        forged[reads[-1]] = (*forged[reads[-1]][:3], b"never written")
        run.check(not linearizable(forged), "a forged history is found out")
    print(f"{load.unknown} writes of unknown outcome")


def wait_for(load, goal, deadline=60):
    end = time.monotonic() + deadline
    while load.count() < goal:
        load.cluster.check_running()
        if load.errors or time.monotonic() > end:
            raise AssertionError(f"the load does not go on: {load.errors}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
