"""What a message rests on has reached memory before it leaves; pools on a disk; pools that are damaged anywhere."""

import glob
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile

import mpx
from harness import EXECUTABLE, die_with_parent, eventually, main, scenario
from load import Load
from mpx import put

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "Sources")
CHECK, PLANT = "MPAXOS_CHECK_FLUSHES", "MPAXOS_PLANT_FLUSH_BUG"


class Environment:
    """Variables for the processes started meanwhile."""

    def __init__(self, **values):
        self.values = values

    def __enter__(self):
        os.environ.update(self.values)

    def __exit__(self, *_):
        for name in self.values:
            os.environ.pop(name, None)


@scenario
def checked_flushes(run):
    """Under load and kills, no replica stops for a message that rests on what has not reached memory."""
    with Environment(**{CHECK: "1"}):
        cluster = run.cluster().start_all()
        load = Load(run, cluster)
        for round in range(run.rounds or 6):
            load.goes_on(60)
            victims = [[cluster.leader()], [run.random.choice(cluster.ids)], list(cluster.ids)][round % 3]
            cluster.kill9(*victims)
            cluster.start(*victims)
        load.finish()


@scenario
def forgotten_flushes(run):
    """A replica whose flush or fence is forgotten, on purpose, stops and says which bytes a message would have left
    before.
    """
    for plant, words in (("acceptor-flush:300", "stored and not flushed"),
                         ("acceptor-fence:300", "flushed and not fenced"),
                         ("state-flush:400", "stored and not flushed"), ("state-fence:200", "flushed and not fenced")):
        cluster = run.cluster(replicas=1, name=plant.replace(":", "-"))
        with Environment(**{CHECK: "1", PLANT: plant}):
            cluster.start_all()
        process = cluster.processes[0]
        process.expected_end = True
        link = cluster.link(0)
        for n in range(2000):
            if not process.running():
                break
            try:
                link.call(mpx.SUBMIT, put(b"key %d" % (n % 50), bytes(20_000)), timeout=1)
            except (mpx.Silent, OSError):
                break
        code = process.wait(30)
        run.check(code != 0, f"{plant}: the replica stops: {code}")
        log = process.log()
        run.check("about to leave" in log and words in log, f"{plant}: it says what: {log[-600:]}")


def rules():
    """The rules that invariants state, as they are written in the sources of what a replica is made of."""
    found = set()
    for module in ("Consensus", "Flow", "Queues", "PersistentMemory", "Storage", "StateMachines", "Replica", "ZMTP"):
        for path in glob.glob(os.path.join(SOURCES, module, "*.swift")):
            with open(path) as file:
                found.update(re.findall(r'\b(?:invariant|broken)\((?:[^"]|\n)*?"([^"\\]+)"\)', file.read()))
    return found


@scenario
def broken_invariant(run):
    """A replica that breaks an invariant, on purpose, says on one line which, where, and where it stood, and aborts.
    The rules are in the executable, whatever build it is."""
    rule = "no invariant is broken on purpose"
    for plant in ("acceptor-invariant:300", "state-invariant:200"):
        cluster = run.cluster(replicas=1, ids=[5], name=plant.replace(":", "-"))
        with Environment(**{CHECK: "1", PLANT: plant}):
            cluster.start_all()
        process = cluster.processes[5]
        process.expected_end = True
        position = 0
        link = cluster.link(5)
        for n in range(2000):
            try:
                position = max(position,
                               link.call(mpx.SUBMIT, put(b"key %d" % (n % 50), bytes(200)), timeout=1).position)
            except (mpx.Silent, OSError):
                break
        run.equal(process.wait(30), -signal.SIGABRT, f"{plant}: the replica aborts")
        # Behind it may come what the Swift runtime says about any crash.
        line = next((line for line in process.log().splitlines() if line.startswith("mpaxos: ")), "")
        found = re.fullmatch(rf"mpaxos: broken invariant: {rule} \(PersistentMemory/FlushCheck\.swift:\d+\); "
                             r"replica 5, view (\d+), decided (\d+), executed (\d+), position (\d+)", line)
        run.check(found is not None, f"{plant}: a line says it: {line!r}")
        view, decided, executed, stood = (int(number) for number in found.groups())
        run.check(view > 0 and decided >= executed > 50 and position - 50 <= stood <= position + 50,
                  f"{plant}: it says where the replica stood: {line!r}, with {position} answered")
    with open(EXECUTABLE, "rb") as file:
        text = file.read()
    written = rules()
    missing = {rule for rule in written if rule.encode() not in text}
    # A compiler drops what it sees to hold.
    run.check(len(written) > 200 and len(missing) < len(written) / 10,
              f"of {len(written)} rules the executable lacks {missing}")
    print(f"{len(written)} rules, {len(missing)} of them not in the executable: {missing}")


@scenario
def on_a_disk(run):
    """Pools on a file system of a disk: each fence is an msync. The load is killed like any other."""
    folder = tempfile.mkdtemp(prefix="mpaxos-disk-", dir=os.environ.get("MPAXOS_DISK", "/var/tmp"))
    run.cleanup.callback(shutil.rmtree, folder, True)
    with Environment(**{CHECK: "1"}):
        cluster = run.cluster(storage={"directory": folder}).start_all()
        run.equal({status["durability"] for status in cluster.statuses().values()}, {"msync"}, "durability")
        load = Load(run, cluster)
        for round in range(run.rounds or 4):
            load.goes_on(20)
            victims = [[cluster.leader()], list(cluster.ids)][round % 2]
            cluster.kill9(*victims)
            cluster.start(*victims)
        load.finish()


def damage(content, region, random):
    """One change of a pool file, and what it was."""
    size = len(content)
    where = random.randrange(region) if random.random() < 0.5 else random.randrange(region, size)
    if random.random() < 0.25:
        where = region + random.randrange(64 << 10)
    kind = random.choice(("bit", "byte", "word", "range", "page", "swap", "cut", "longer"))
    changed = bytearray(content)
    if kind == "bit":
        changed[where] ^= 1 << random.randrange(8)
    elif kind == "byte":
        changed[where] = random.randrange(256)
    elif kind == "word":
        changed[where & ~7:(where & ~7) + 8] = random.choice((b"\xff" * 8, bytes(8), random.randbytes(8)))
    elif kind == "range":
        count = min(random.randrange(1, 5000), size - where)
        changed[where:where + count] = random.randbytes(count)
    elif kind == "page":
        changed[where & ~4095:(where & ~4095) + 4096] = bytes(4096)
    elif kind == "swap":
        a, b = where & ~4095, random.randrange(size) & ~4095
        changed[a:a + 4096], changed[b:b + 4096] = content[b:b + 4096], content[a:a + 4096]
    elif kind == "cut":
        del changed[random.randrange(size):]
    else:
        changed += bytes(random.randrange(1, 9000))
    return f"{kind} at {where}", changed


@scenario
def damaged_pools(run):
    """Pools of real content, changed anywhere: refused with a sentence, or opened; never a crash, never for ever."""
    cluster = run.cluster(replicas=1).start_all()
    client = cluster.client().open()
    for n in range(200):
        client.submit(put(b"key %d" % n, run.random.randbytes(run.random.choice((5, 300, 5000)))))
    cluster.kill9(0)
    outcomes = {}
    for path, magic in zip(cluster.pools(0), (b"\x01MPXACCT", b"MPXSTAT1")):
        with open(path, "rb") as file:
            content = file.read()
        region = content.index(magic)
        for number in range(run.rounds or 40):
            seed = run.random.randrange(1 << 32)
            what, changed = damage(content, region, random.Random(seed))
            with open(path, "wb") as file:
                file.write(changed)
            commands = [["dump", "--pool", path, "--verify"]]
            if path.endswith("state.pool"):
                commands.append(["digest", "--pool", path])
            for command in commands:
                outcome = ended(run, command, f"{os.path.basename(path)}, {what} (seed {seed})")
                outcomes[command[0], outcome] = outcomes.get((command[0], outcome), 0) + 1
            opened(run, cluster, f"{os.path.basename(path)}, {what} (seed {seed})", outcomes)
            for pool, kept in list(run_kept(cluster, content, path).items()):
                with open(pool, "wb") as file:
                    file.write(kept)
    print(outcomes)


def run_kept(cluster, content, path):
    """The pools as they are to be before the next change: the other one may have gone on with this one."""
    kept = cluster.__dict__.setdefault("kept", {})
    if not kept:
        for pool in cluster.pools(0):
            with open(pool, "rb") as file:
                kept[pool] = file.read()
    kept[path] = content
    return kept


def ended(run, command, what):
    try:
        done = subprocess.run([EXECUTABLE, *command], stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
                              preexec_fn=die_with_parent)
    except subprocess.TimeoutExpired:
        run.fail(f"{command[0]} of {what} does not end")
        return "hang"
    errors = done.stderr.decode(errors="replace")
    run.check(done.returncode in (0, 1, 3), f"{command[0]} of {what}: code {done.returncode}: {errors[-1500:]}")
    return done.returncode


def opened(run, cluster, what, outcomes):
    """As the node does: refused with exit code 3, or ready."""
    process = cluster.launch(0)
    process.expected_end = True
    code = eventually(lambda: (process.output().endswith("\n") and ("ready",)) or
                      (not process.running() and (process.popen.returncode,)), f"run with {what} ends or is ready")[0]
    if code == "ready":
        cluster.kill9(0)
    else:
        run.check(code == 3, f"run with {what}: code {code}: {process.log()[-1500:]}")
    outcomes["run", code] = outcomes.get(("run", code), 0) + 1


if __name__ == "__main__":
    main()
