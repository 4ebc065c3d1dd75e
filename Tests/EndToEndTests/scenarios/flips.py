"""Single bits flipped in the pools of a stopped replica, which is then started beside its two peers: it is refused, or
it stops, or what it says is right. `scripts/flips` does many.

A flip is drawn from a seed and its number alone, on images of pools that are made once: those of a cluster that was
killed, and of the same cluster when it was stopped in order."""

import collections
import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback

import layout
import mpx
from harness import SHARED_MEMORY, Ports, die_with_parent, eventually, execute, main, scenario
from images import ENDS, POOLS, REPLICAS, SECTIONS, Images, Request, ask, held, pools, reads, value
from mpx import LOCAL, OK, OPEN, SUBMIT, append, delete, put, some

# Seconds in which a replica must be ready, agree with its peers or end; later, no answer may be wrong.
PATIENCE = 60

OUTCOMES = {
    "refused": "exit code 3 before it was ready",
    "stopped": "exit code 3 after it was ready, by the comparison or by itself",
    "repaired": "took the state of a peer, and is equal to it",
    "harmless": "its digest is that of its peers, and `dump --verify` finds nothing",
    "latent": "its digest is that of its peers, and `dump --verify` finds damage",
    "wrong": "a wrong answer 60 s after it was ready",
    "stuck": "neither ended nor equal to its peers after 60 s",
    "aborted": "ended by a broken invariant",
    "crashed": "ended in another way",
    "spread": "a peer ended, or answers wrongly",
}
FAULTS = ("wrong", "stuck", "aborted", "crashed", "spread")


@dataclasses.dataclass
class Flip:
    """Where a bit is flipped, and what came of it."""

    number: int
    replica: int
    end: str
    pool: str
    region: str
    used: bool
    offset: int
    bit: int
    outcome: str = ""
    code: int | None = None
    # What the replica said last, or `dump --verify`.
    sentence: str = ""
    # Wrong answers; the first, and how long after the replica was ready they came.
    wrong: int = 0
    wrong_what: str = ""
    wrong_first_s: float | None = None
    wrong_last_s: float | None = None
    ready_s: float | None = None
    seconds: float = 0


def draw(images, seed, number):
    """Flip `number` of a seed. Half of them lie in either pool; of these, half anywhere up to the last byte that
    was ever used, and half in what is used of a region, each region as often as another, so that small ones are
    hit, too."""
    source = random.Random(f"{seed}/{number}")
    replica, end, pool = source.choice(REPLICAS), source.choice(ENDS), source.choice(POOLS)
    extents = images.extents[replica, end, pool]
    if source.random() < 0.5:
        region = source.choice(sorted({extent.region for extent in extents if extent.used}))
        extents = [extent for extent in extents if extent.used and extent.region == region]
    extent = source.choices(extents, [extent.end - extent.start for extent in extents])[0]
    offset = source.randrange(extent.start, extent.end)
    return Flip(number, replica, end, pool, extent.region, extent.used, offset, source.randrange(8))


class Site:
    """A cluster on which one flip is tried after the other."""

    def __init__(self, run, images, seed):
        self.run, self.images, self.seed = run, images, seed
        self.cluster = run.cluster(prepare=False, **SECTIONS)
        self.folder = self.cluster.sections["storage"]["directory"]
        # Whose peers are up on which images, and have not met it since.
        self.standing = None

    def attempt(self, number):
        """The flip, with what came of it."""
        while True:
            begin = time.monotonic()
            self.flip = draw(self.images, self.seed, number)
            self.peers = [id for id in REPLICAS if id != self.flip.replica]
            if self.prepare() and self.try_flip():
                break
            # Another process took a port.
            self.clear()
            self.cluster.ports = {id: (Ports.take(), Ports.take(), None) for id in REPLICAS}
            self.cluster.write_topology()
        self.flip.seconds = round(time.monotonic() - begin, 3)
        if self.flip.outcome != "refused" or self.met() != self.before:
            self.clear()
        return self.flip

    def clear(self):
        """Nobody runs; files of processes that are gone, too."""
        self.standing = None
        self.forget(*[process.id for process in self.cluster.history])

    def forget(self, *ids):
        for process in [process for process in self.cluster.history if process.id in ids]:
            process.expected_end = True
            process.kill()
            os.remove(process.output_path)
            os.remove(process.error_path)
            self.cluster.history.remove(process)

    # The pools.

    def restore(self, replica):
        os.makedirs(os.path.join(self.folder, str(replica)), exist_ok=True)
        folder = os.path.join(self.images.folder, self.flip.end)
        for image, pool in zip(pools(folder, replica), pools(self.folder, replica)):
            # In place, which spares the pages.
            with open(image, "rb") as source, open(os.open(pool, os.O_RDWR | os.O_CREAT), "r+b") as file:
                size = os.path.getsize(image)
                done = 0
                while done < size:
                    done += os.sendfile(file.fileno(), source.fileno(), None, size - done)
                file.truncate(size)

    def met(self):
        """What the peers have on record of lives and incarnations."""
        found = []
        for id in self.peers:
            extents = self.images.extents[id, self.flip.end, POOLS[0]]
            region = next(extent for extent in extents if extent.region == "peers")
            with open(self.cluster.pools(id)[0], "rb") as file:
                found.append(os.pread(file.fileno(), layout.PAGE, region.start))
        return found

    def prepare(self):
        """The peers are up, on images that know no later life of the replica; its own pools are as the images, but for
        the bit. Not when a port is taken."""
        flip = self.flip
        if self.standing != (flip.replica, flip.end):
            self.clear()
            for id in self.peers:
                self.restore(id)
                self.cluster.launch(id)
            if not all(self.is_ready(id) for id in self.peers):
                return False
            self.standing = (flip.replica, flip.end)
        else:
            self.forget(flip.replica)
        self.restore(flip.replica)
        self.before = self.met()
        with open(os.path.join(self.folder, str(flip.replica), flip.pool), "r+b") as file:
            byte = os.pread(file.fileno(), 1, flip.offset)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << flip.bit]), flip.offset)
        return True

    def is_ready(self, id):
        """Not when its port was taken."""
        process = self.cluster.processes[id]
        eventually(lambda: process.output().endswith("\n") or not process.running(), f"replica {id} is ready, or ends",
                   10 * PATIENCE, pause=0.005)
        if not process.running() and process.popen.returncode != 2:
            raise AssertionError(f"a peer, replica {id}, ended with code {process.popen.returncode}")
        return process.running()

    # The replica.

    def try_flip(self):
        """Not when a port was taken."""
        self.process = self.cluster.launch(self.flip.replica)
        begin = time.monotonic()
        while not self.process.output().endswith("\n"):
            if not self.process.running() or time.monotonic() > begin + PATIENCE:
                break
            time.sleep(0.005)
        if self.process.output().endswith("\n"):
            self.ready = time.monotonic()
            self.flip.ready_s = round(self.ready - begin, 3)
            with mpx.Link(self.cluster.endpoint(self.flip.replica), "dealer", SNDHWM=0, RCVHWM=0) as self.link:
                self.serve()
            self.look_at_peers()
        elif self.process.running():
            self.conclude("stuck")
        else:
            self.conclude_end("refused")
            assert "pools of an earlier time" not in self.flip.sentence, f"a mistake of these tests: {self.flip}"
        return self.flip.code != 2

    def conclude(self, outcome, sentence=None):
        self.flip.outcome = self.flip.outcome or outcome
        self.flip.code = self.process.popen.poll()
        lines = self.process.log().strip().splitlines() or [""]
        self.flip.sentence = sentence or next((line for line in lines if line.startswith("mpaxos:")), lines[-1])

    def conclude_end(self, with_code_3):
        code = self.process.wait()
        self.conclude(with_code_3 if code == 3 else "crashed")
        if code == -signal.SIGABRT and "broken invariant" in self.flip.sentence:
            self.flip.outcome = "aborted"

    def serve(self):
        """The replica is ready: asked for all that it holds, and to change some of it, and looked at until it is plain
        what came of the flip."""
        self.now = dict(self.images.values)
        self.changed = []
        self.check(reads(self.images.values, LOCAL))
        self.check(self.images.kept)
        self.check(reads(self.images.values))
        self.write()
        while True:
            wrong = self.flip.wrong
            agreed = self.agrees()
            self.check(reads(self.now, LOCAL))
            if not self.process.running():
                return self.conclude_end("stopped")
            late = time.monotonic() > self.ready + PATIENCE
            if self.flip.wrong > wrong:
                if late:
                    return self.conclude("wrong")
            elif agreed:
                return self.look_at_pools()
            elif late:
                return self.conclude("stuck")
            time.sleep(0.2)

    def check(self, requests):
        """Asks; returns whether all were answered."""
        replies = ask(self.link, requests, self.process)
        after = round(time.monotonic() - self.ready, 3)
        for request, reply in replies:
            if request.is_right(reply):
                continue
            if self.flip.wrong == 0:
                self.flip.wrong_first_s, self.flip.wrong_what = after, f"{request.what}: {reply}"
            self.flip.wrong += 1
            self.flip.wrong_last_s = after
        return len(replies) == len(requests)

    def write(self):
        """Some keys of each kind through the replica. What an answer was not had for counts for nothing afterwards."""
        source = random.Random(self.flip.number)
        opened = ask(self.link, [Request("a session", OPEN, b"", b"")], self.process)
        if not opened or opened[0][1].status != OK:
            return
        session = opened[0][1].session
        names = source.sample(sorted(self.now), 24)
        for sequence, name in enumerate([*names, b"key-new-1", b"key-new-2"], 1):
            old = self.now.get(name)
            answer, self.now[name] = held(old), None
            match sequence % 4:
                case 0:
                    body = delete(name)
                case 1 if old is not None:
                    body = append(name, b"more")
                    answer, self.now[name] = some(struct.pack("<Q", len(old) + 4)), old + b"more"
                case 2 if old is not None:
                    self.now[name] = random.Random(name).randbytes(len(old))
                    body = put(name, self.now[name])
                case _:
                    self.now[name] = value(name, 1)
                    body = put(name, self.now[name])
            change = Request(f"a change of {name.decode()}", SUBMIT, body, answer, 0, session, sequence)
            if not self.check([change]):
                del self.now[name]
                return
            self.changed.append(name)

    def agrees(self):
        """Whether the digests of all are equal, with the same instances executed; not when they have not come to that
        in some time, or the replica ended."""
        end = time.monotonic() + 5
        while self.process.running() and time.monotonic() < end:
            try:
                found = [self.cluster.status(id, timeout=1.0) for id in REPLICAS]
            except (mpx.Silent, AssertionError):
                continue
            standings = [(status["digest"]["executed"], status["digest"]["value"]) for status in found]
            if len({*standings, *((status["executed"], standings[0][1]) for status in found)}) == 1:
                return True
            time.sleep(0.03)
        return False

    def look_at_pools(self):
        self.process.popen.terminate()
        try:
            if self.process.wait(PATIENCE) != 0:
                return self.conclude_end("stopped")
        except AssertionError:
            return self.conclude("stuck")
        took = "the state of replica" in self.process.log() and "is verified" in self.process.log()
        for pool in self.cluster.pools(self.flip.replica):
            done = execute("dump", "--pool", pool, "--verify")
            if done.code != 0:
                text = (done.output + done.errors).splitlines()
                return self.conclude("latent", next((found.strip() for found in text if "DAMAGED:" in found), text[-1]))
        return self.conclude("repaired" if took else "harmless")

    def look_at_peers(self):
        """They are up, and have what was written."""
        sample = [*self.changed, *random.Random(self.flip.number).sample(sorted(self.images.values), 50)]
        for id in self.peers:
            process = self.cluster.processes[id]
            requests = reads({name: self.now[name] for name in sample if name in self.now})
            with mpx.Link(self.cluster.endpoint(id), "dealer") as link:
                for request, reply in ask(link, requests, process, PATIENCE):
                    if not request.is_right(reply):
                        self.flip.outcome, self.flip.sentence = "spread", f"replica {id}, {request.what}: {reply}"
            if not process.running():
                last = process.log().strip().splitlines()[-1]
                self.flip.outcome, self.flip.sentence = "spread", f"replica {id} ended: {last}"


# Many at once.

def work(run, images, seed, numbers, next_index, results):
    """A process that tries flips until none is left."""
    die_with_parent()
    # The parent says when it is over; then there is something to clean up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    mpx.context = mpx.zmq.Context()
    site = Site(run, images, seed)
    try:
        while True:
            with next_index.get_lock():
                index = next_index.value
                next_index.value += 1
            if index >= len(numbers):
                break
            results.put(site.attempt(numbers[index]))
    except BaseException:
        results.put(f"flip {site.flip.number}: {traceback.format_exc()}\n{site.cluster.tails()}")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        site.clear()
        site.cluster.remove()


def try_all(run, folder, seed, numbers, jobs, report=lambda flip: None):
    """(images, flips): each number of the seed tried, on `jobs` clusters at a time."""
    # Processes are forked, and ZeroMQ is not to be: so the images are made in one, too.
    apart = multiprocessing.get_context("fork")
    maker = apart.Process(target=Images, args=(run, folder))
    maker.start()
    maker.join()
    assert maker.exitcode == 0, "the images are made"
    images = Images(run, folder)
    # The peers stay up from one to the next of a kind.
    kinds = {number: draw(images, seed, number) for number in numbers}
    numbers = sorted(numbers, key=lambda number: (kinds[number].replica, kinds[number].end))
    next_index, results = apart.Value("l", 0), apart.Queue()
    arguments = (run, images, seed, numbers, next_index, results)
    workers = [apart.Process(target=work, args=arguments) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    flips = []
    try:
        for _ in numbers:
            flip = results.get()
            if isinstance(flip, str):
                raise AssertionError(flip)
            report(flip)
            flips.append(flip)
    finally:
        for worker in workers:
            if len(flips) < len(numbers):
                worker.terminate()
            worker.join()
    return images, flips


def table(images, flips):
    """What came of them, by pool and region, in Markdown."""
    seen = {flip.outcome for flip in flips}
    outcomes = [outcome for outcome in OUTCOMES if outcome in seen or outcome not in FAULTS]
    rows = [["pool", "region", "flips", *outcomes, "answered wrongly"]]
    groups = collections.defaultdict(list)
    for flip in flips:
        groups[flip.pool, flip.region if flip.used else flip.region + ", not in use"].append(flip)
    for (pool, region), group in [*sorted(groups.items()), (("all", ""), flips)]:
        counts = [sum(flip.outcome == outcome for flip in group) for outcome in outcomes]
        rows.append([pool, region, len(group), *counts, sum(flip.wrong > 0 for flip in group)])
    lines = ["| " + " | ".join(str(cell or "") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    used = sum(flip.used for flip in flips)
    lines += ["", f"{used} of {len(flips)} flips ({used / len(flips):.0%}) lie in bytes in use."]
    for pool in POOLS:
        size, part = images.size(pool)
        lines.append(f"{pool}: {part} of {size} bytes are in use ({part / size:.0%}).")
    wrong = [flip.wrong_last_s for flip in flips if flip.wrong]
    if wrong:
        lines.append(f"{len(wrong)} replicas answered wrongly, the last of them {max(wrong):.1f} s after it was ready.")
    lines += ["", *[f"- {outcome}: {OUTCOMES[outcome]}" for outcome in outcomes]]
    return "\n".join(lines)


def line(flip):
    return json.dumps(dataclasses.asdict(flip))


@scenario
def some_flips(run):
    """Some random flips. None makes a replica hang, harm its peers, answer wrongly for long, or end by anything but a
    refusal."""
    folder = tempfile.mkdtemp(prefix="mpaxos-e2e-flips-", dir=SHARED_MEMORY)
    run.cleanup.callback(shutil.rmtree, folder, True)
    seed = run.random.randrange(1 << 32)
    images, flips = try_all(run, folder, seed, range(run.rounds or 40), 4)
    print(table(images, flips))
    for flip in flips:
        run.check(flip.outcome not in FAULTS, f"seed {seed}: {line(flip)}")


if __name__ == "__main__":
    main()
