"""What a replica refuses for safety: exit code 3, a sentence that helps, nothing on standard output, and nothing
harmed.
"""

import hashlib
import os
import shutil
import struct
import time
import urllib.request

import layout
import mpx
from harness import Cluster, Process, eventually, execute, main, scenario
from mpx import OK, PING, SUBMIT, add, get, number, put, some


def fingerprint(path):
    """What a file is, its bytes and its size; None when there is none."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return os.path.getsize(path), hashlib.sha256(file.read()).hexdigest()


def refused(run, cluster, id, what, *words, untouched=()):
    """Replica `id` does not start, and says why. Files in `untouched`, which are no pools, are left as they are;
    opening a pool may leave traces in it, which do no harm: that is for the caller to see."""
    pools = cluster.pools(id)
    before = [fingerprint(path) for path in untouched]
    present = [os.path.exists(pool) for pool in pools]
    done = execute("run", "--topology", cluster.topology, "--id", str(id), deadline=30)
    run.finished(done, what, 3, "")
    sentence = done.errors.strip().splitlines()[-1] if done.errors.strip() else ""
    run.check(any(pool in sentence for pool in pools), f"{what}: the sentence names the pool: {sentence!r}")
    run.check(len(sentence.split()) > 5, f"{what}: the sentence helps: {sentence!r}")
    run.check("rror:" not in done.errors and "crash" not in done.errors,
              f"{what}: a sentence, not a crash: {done.errors!r}")
    for word in words:
        run.check(word in sentence, f"{what}: the sentence says {word!r}: {sentence!r}")
    run.equal([os.path.exists(pool) for pool in pools], present, f"{what}: which pools exist afterwards")
    run.equal([fingerprint(path) for path in untouched], before, f"{what}: what is no pool afterwards")


class Aside:
    """A copy of the pools of a replica that does not run, to bring them back from."""

    def __init__(self, cluster, id):
        self.pools = cluster.pools(id)
        self.folder = os.path.dirname(self.pools[0])
        self.kept = self.folder + ".kept"
        self.renew()

    def renew(self):
        shutil.rmtree(self.kept, ignore_errors=True)
        shutil.copytree(self.folder, self.kept)

    def restore(self, *pools):
        """Brings back some pools, or all."""
        os.makedirs(self.folder, exist_ok=True)
        for pool in pools or self.pools:
            shutil.copyfile(os.path.join(self.kept, os.path.basename(pool)), pool)


@scenario
def pools(run):
    """Pools that are missing, cut, damaged or not this replica's."""
    cluster = run.cluster(replicas=1).start_all()
    client = cluster.client().open()
    client.submit(put(b"kept", b"value"))
    cluster.stop(0)
    aside = Aside(cluster, 0)
    acceptor, state = aside.pools
    names = {acceptor: "acceptor.pool", state: "state.pool"}

    for index, pool in enumerate(aside.pools):
        os.remove(pool)
        refused(run, cluster, 0, f"{names[pool]} is missing", pool)
        # Its partner was not harmed: with the file back, the replica serves.
        aside.restore(pool)
        serves(run, cluster, client)
        aside.renew()
        size = os.path.getsize(pool)
        for cut in (0, 1, 100, 4096, 8192, size // 2, size - 4096, size - 1):
            os.truncate(pool, cut)
            refused(run, cluster, 0, f"{names[pool]} of {cut} of {size} bytes", pool, untouched=[pool])
            aside.restore(pool)
        for what, content in (("random bytes", os.urandom(size)), ("zeros", bytes(size)), ("a text", b"hello")):
            with open(pool, "wb") as file:
                file.write(content)
            refused(run, cluster, 0, f"{what} in place of {names[pool]}", pool, untouched=[pool])
        os.remove(pool)
        os.mkdir(pool)
        refused(run, cluster, 0, f"a folder in place of {names[pool]}")
        os.rmdir(pool)
        aside.restore(pool)
        flipped(run, cluster, aside, pool, names[pool])
        serves(run, cluster, client)
        aside.renew()
    shutil.rmtree(aside.folder)
    refused(run, cluster, 0, "both pools are missing", "format")
    run.check(not os.path.exists(aside.folder), "a missing folder is not made by running")
    aside.restore()
    os.rename(acceptor, acceptor + ".x")
    os.rename(state, acceptor)
    os.rename(acceptor + ".x", state)
    refused(run, cluster, 0, "pools that have changed places")
    os.rename(acceptor, acceptor + ".x")
    os.rename(state, acceptor)
    os.rename(acceptor + ".x", state)
    serves(run, cluster, client)
    aside.renew()
    mixed(run, cluster, aside)
    serves(run, cluster, client)


def serves(run, cluster, client):
    """The replica starts, has what it had, and takes more."""
    cluster.start(0)
    run.reply(client.query(get(b"kept")), "pools that were not harmed", status=OK, body=some(b"value"))
    before = client.submit(add(b"served", 1))
    run.equal(client.again(add(b"served", 1)).kept, before.kept, "a retry with pools that were not harmed")
    cluster.stop(0)


def flipped(run, cluster, aside, pool, name):
    """Bytes of the header are changed: the first page of the file, and the page that names the cluster."""
    with open(pool, "rb") as file:
        content = file.read()
    identity = content.find(cluster.name.encode() + b"\0", 4096)
    run.check(identity > 0, f"{name} names its cluster")
    offsets = [0, 5, 8, 24, 40, identity, identity + len(cluster.name) - 1]
    page = identity // 4096 * 4096
    offsets += [page + n for n in (0, 8, 16)]
    for offset in offsets:
        with open(pool, "r+b") as file:
            file.seek(offset)
            file.write(bytes([content[offset] ^ 0x55]))
        refused(run, cluster, 0, f"a changed byte at {offset} of {name} (its identity is at {identity})", pool)
        aside.restore(pool)


def mixed(run, cluster, aside):
    """One pool of an older format, one of a newer, both of this replica: they were never together."""
    shutil.rmtree(aside.folder)
    cluster.format(0)
    newer = aside.folder + ".newer"
    shutil.move(aside.folder, newer)
    for pool in aside.pools:
        aside.restore()
        shutil.copyfile(os.path.join(newer, os.path.basename(pool)), pool)
        refused(run, cluster, 0, f"the {os.path.basename(pool)} of a newer format")
    # The partner of the last one is in place still, and was not harmed.
    aside.restore(aside.pools[1])


@scenario
def strangers(run):
    """Pools of another replica and of another cluster; pools that another process uses; format over what exists."""
    cluster = run.cluster()
    other = run.cluster(name="other", replicas=1)
    folders = [os.path.dirname(cluster.pools(id)[0]) for id in cluster.ids] + [os.path.dirname(other.pools(0)[0])]

    def exchange(one, two, *names):
        for name in names:
            paths = [os.path.join(folder, name) for folder in (one, two)]
            os.rename(paths[0], paths[0] + ".x")
            os.rename(paths[1], paths[0])
            os.rename(paths[0] + ".x", paths[1])

    both = ("acceptor.pool", "state.pool")
    exchange(folders[0], folders[1], *both)
    refused(run, cluster, 1, "the pools of another replica", "replica 0", "replica 1")
    refused(run, cluster, 0, "the pools of another replica", "replica 0", "replica 1")
    exchange(folders[0], folders[1], *both)
    for name in both:
        exchange(folders[1], folders[2], name)
        refused(run, cluster, 1, f"the {name} of another replica", "replica 2", "replica 1")
        exchange(folders[1], folders[2], name)
    exchange(folders[0], folders[3], *both)
    refused(run, cluster, 0, "the pools of another cluster", "'other'", f"'{cluster.name}'")
    refused(run, other, 0, "the pools of another cluster", "'other'", f"'{cluster.name}'")
    exchange(folders[0], folders[3], *both)

    before = [fingerprint(pool) for pool in cluster.pools(2)]
    for missing in (None, *cluster.pools(2)):
        if missing:
            os.rename(missing, missing + ".x")
        run.finished(execute("format", "--topology", cluster.topology, "--id", "2"), "format over what exists", 3, "")
        if missing:
            run.check(not os.path.exists(missing), "a format that is refused leaves nothing behind")
            os.rename(missing + ".x", missing)
    run.equal([fingerprint(pool) for pool in cluster.pools(2)], before, "pools after a format that was refused")

    # None of them was harmed by being refused elsewhere.
    other.start_all()
    run.reply(other.client().open().submit(add(b"sum", 1)), "the other cluster serves", status=OK)
    cluster.start_all()
    client = cluster.client().open()
    for id in cluster.ids:
        in_use(run, cluster, id, client)
    cluster.settle()


def in_use(run, cluster, id, client):
    client.submit(add(b"sum", 1))
    done = execute("run", "--topology", cluster.topology, "--id", str(id), deadline=30)
    run.finished(done, "a second process on the same pools", 3, "")
    run.check("in use" in done.errors or "another process" in done.errors, f"it says so: {done.errors!r}")
    run.finished(execute("format", "--topology", cluster.topology, "--id", str(id)), "format of pools in use", 3, "")
    run.check(cluster.alive(id), "the first process goes on")
    link = cluster.link(id)
    run.reply(link.call(SUBMIT, get(b"sum")), "the first process serves", status=OK, body=some(number(id + 1)))


@scenario
def formats(run):
    """A format that is killed, or that races another, leaves nothing that passes for a replica."""
    cluster = run.cluster(replicas=1, prepare=False, storage={"log_size": "32MiB", "state_size": "128MiB"})
    folder = os.path.dirname(cluster.pools(0)[0])
    whole = cut = 0
    for n in range(12):
        process = Process(["format", "--topology", cluster.topology, "--id", "0"], cluster.directory, "format")
        if n % 2:
            eventually(lambda: os.path.exists(cluster.pools(0)[n // 2 % 2]) or not process.running(), "a pool appears",
                       pause=0)
        time.sleep(run.random.random() * 0.1)
        process.kill()
        if process.popen.returncode == 0:
            whole += 1
            cluster.start(0)
            cluster.stop(0)
        elif all(map(os.path.exists, cluster.pools(0))):
            cut += 1
            run_ends(run, cluster)
        elif os.path.exists(folder):
            refused(run, cluster, 0, "pools of a format that was killed")
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{whole} formats were whole, {cut} left both files")

    racing = [Process(["format", "--topology", cluster.topology, "--id", "0"], cluster.directory, f"race-{n}")
              for n in range(4)]
    codes = sorted(process.wait(60) for process in racing)
    run.equal(codes, [0, 3, 3, 3], "exit codes of four formats at once")
    cluster.start(0)
    cluster.stop(0)


def run_ends(run, cluster):
    """Both files are there, and the process that made them did not finish: they are whole, or they are refused."""
    process = cluster.launch(0)
    process.expected_end = True
    eventually(lambda: process.output() or not process.running(), "it is ready, or refused")
    if process.running():
        cluster.stop(0)
    else:
        run.equal((process.popen.returncode, process.output()), (3, ""),
                  f"run after a format that was killed: {process.log()!r}")


def verified(run, path, what, *words):
    """`dump --verify` finds the same."""
    done = execute("dump", "--pool", path, "--verify")
    run.equal(done.code, 1, f"code of dump --verify: {what}")
    for word in words:
        run.check(word in done.output + done.errors,
                  f"dump --verify, {what}: it says {word!r}: {done.output + done.errors!r}")


@scenario
def damaged_state(run):
    """One bit in what the open of a state trusts. What was replayed in place of it made a counter of 2 read 3."""
    cluster = run.cluster(replicas=1).start_all()
    client = cluster.client().open()
    total = 12
    for _ in range(total):
        client.submit(add(b"sum", 1))
    cluster.kill9(0)
    pool = layout.StateFile(cluster.pools(0)[1])
    records = pool.records()
    run.check(len(records) >= total, f"each command had a commit: {records}")
    for commit, at in (records[0], records[len(records) // 2], records[-1]):
        # The number, the count of lines, a sum, a line's number, a line.
        for offset in (0, 8, 16, 64, 130):
            pool.flip(at + offset, bit=offset % 8)
            words = ("the journal is damaged", f"commit {commit} ", f"offset {at - pool.region} ")
            what = f"a bit at {offset} of the record of commit {commit}"
            verified(run, pool.path, what, *words)
            refused(run, cluster, 0, what, pool.path, *words)
            pool.restore()
    for name, at in (("first", pool.first_commit), ("newest", pool.newest_commit)):
        for bit in (0, 21, 47, 48, 63):
            pool.flip(at + bit // 8, bit % 8)
            refused(run, cluster, 0, f"bit {bit} of the number of the {name} commit", pool.path, f"its {name} commit")
            pool.restore()
    cluster.start(0)
    run.reply(client.submit(add(b"sum", 1)), "the state is as it was", status=OK, body=some(number(total + 1)))
    cluster.stop(0)

    pool = layout.StateFile(cluster.pools(0)[1])
    run.equal(pool.records(), [], "records after a stop in order")
    # Executed instances, records of the next one, the clock of uses, the instance of an image; its sum.
    for offset in (0, 8, 16, 24, 60):
        pool.flip(pool.progress + offset, bit=1)
        words = ("how far it has executed", f"offset {pool.progress - pool.region} ")
        verified(run, pool.path, f"a bit of the progress at {offset}", *words)
        refused(run, cluster, 0, f"a bit of the progress at {offset}", pool.path, *words)
        pool.restore()
    for offset in (8, 24, 40, 56):
        pool.flip(pool.root + offset, bit=1)
        refused(run, cluster, 0, f"a bit of the state's root at {offset}", pool.path, "the description of its sessions")
        pool.restore()
    cluster.start(0)
    run.reply(client.submit(add(b"sum", 1)), "the state is as it was", status=OK, body=some(number(total + 2)))


@scenario
def damaged_votes(run):
    """One bit in a vote that was fenced: refused while the machine runs on; dropped, said and counted after a loss of
    power.
    """
    cluster = run.cluster(replicas=1, http=True).start_all()
    client = cluster.client().open()
    total = 8
    for _ in range(total):
        client.submit(add(b"sum", 1))
    cluster.kill9(0)
    aside = Aside(cluster, 0)
    pool = layout.AcceptorFile(cluster.pools(0)[0])
    votes = pool.lines()
    for epoch, instance, slot, at in (votes[0], votes[len(votes) // 2], votes[-1]):
        # The number of the group, the view, the place and length of the batch, the sum.
        for offset in (0, 17, 24, 32, 63):
            pool.flip(at + offset, bit=3)
            words = (f"slot {slot}", f"instance {instance},", f"offset {at - pool.region} ")
            verified(run, pool.path, f"a bit at {offset} of the vote for {instance}", *words)
            refused(run, cluster, 0, f"a bit at {offset} of the vote for {instance}", pool.path, *words)
            pool.restore()
    pool.flip(pool.fenced)
    refused(run, cluster, 0, "a bit in the number of the newest group", pool.path, "newest group commit")
    pool.restore()

    epoch, instance, slot, at = votes[-1]
    lost = "as after a loss of power"

    def dropped(what, *words):
        cluster.start(0)
        log = [line for line in cluster.processes[0].log().splitlines() if "warning" in line and "is dropped" in line]
        run.equal(len(log), 1, f"{what}: lines in the log")
        for word in (pool.path, *words):
            run.check(word in log[0], f"{what}: the log says {word!r}: {log[0]!r}")
        run.equal(cluster.status(0)["votes_dropped_torn"], 1, f"{what}: STATUS")
        with urllib.request.urlopen(cluster.http(0) + "/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        run.check("votes_dropped_torn_total 1\n" in metrics, f"{what}: /metrics")
        run.reply(cluster.link(0).call(SUBMIT, get(b"sum")), f"{what}: the state", status=OK, body=some(number(total)))
        cluster.kill9(0)
        aside.restore()

    pool.lose_power()
    pool.flip(at + 17)
    dropped(lost, f"instance {instance} in slot {slot}")
    # A line that was being written: its first word is that of the group after the newest.
    fenced = layout.number(pool.word(pool.fenced))
    free = pool.votes + (slot + 1) % pool.slots * 2 * layout.LINE
    pool.write(free, struct.pack("<QQ", layout.checked(fenced + 1), instance + 1))
    dropped("killed while it wrote a vote", f"instance {instance + 1} in slot")
    cluster.start(0)
    run.equal(cluster.status(0)["votes_dropped_torn"], 0, "votes dropped of a pool that is whole")
    run.reply(cluster.link(0).call(SUBMIT, get(b"sum")), "the state is as it was", status=OK, body=some(number(total)))


@scenario
def lost_pools(run):
    """A replica that lost its pools and was formatted anew has forgotten its promises: the others refuse it, loudly."""
    cluster = run.cluster().start_all()
    client = cluster.client().open()
    client.submit(add(b"sum", 1))
    cluster.settle()
    victim = run.random.choice(cluster.ids)
    others = [id for id in cluster.ids if id != victim]
    cluster.stop(victim)
    aside = Aside(cluster, victim)
    shutil.rmtree(aside.folder)
    cluster.format(victim)
    logs = {id: len(cluster.processes[id].log()) for id in others}
    amnesiac = cluster.launch(victim)

    def complained(id):
        return [line for line in cluster.processes[id].log()[logs[id]:].splitlines() if "incarnation" in line
                and "error" in line]

    def noticed():
        # The one who is connected to objects; who of a pair connects depends on the ids.
        return complained(others[0]) and complained(others[1])

    eventually(noticed, f"the others say that replica {victim} has other pools than before", 30)
    for n in range(20):
        run.reply(client.submit(add(b"sum", 1)), "the others go on", status=OK, body=some(number(n + 2)))
    run.equal(amnesiac.output(), "", "a replica without its memory does not become ready")
    if amnesiac.running():
        status = cluster.status(victim)
        run.equal((status["executed"], status["position"]), (0, 0), "it has executed nothing")
        run.check(status["role"] != "leader", "it does not lead")
        cluster.kill9(victim)
    amnesiac.expected_end = True
    aside.restore()
    cluster.start(victim)
    cluster.settle()
    run.reply(cluster.link(victim).call(SUBMIT, get(b"sum")), "with its old pools it is back", status=OK,
              body=some(number(21)))


@scenario
def foreign_cluster(run):
    """A replica of another cluster whose topology points here is refused, and this cluster is not disturbed."""
    cluster = run.cluster().start_all()
    client = cluster.client().open()
    client.submit(add(b"sum", 1))
    before = cluster.statuses()
    foreign = Cluster(run, name="foreign", prepare=False)
    for id in (0, 1):
        foreign.ports[id] = (cluster.peer_port(id), *foreign.ports[id][1:])
    foreign.write_topology()
    foreign.format(2)
    stranger = foreign.launch(2)
    for id in (0, 1):
        eventually(lambda: any("foreign" in line and "error" in line
                               for line in cluster.processes[id].log().splitlines()),
                   f"replica {id} says that it refused a replica of cluster foreign")
    eventually(lambda: "refuses" in stranger.log(), "the stranger says that it was refused")
    for n in range(20):
        run.reply(client.submit(add(b"sum", 1)), "the cluster goes on", status=OK, body=some(number(n + 2)))
    run.equal(stranger.output(), "", "a stranger does not become ready")
    run.reply(foreign.link(2).call(PING, b"x"), "the stranger itself lives", status=OK)
    run.check(foreign.status(2)["leader"] is None, "the stranger knows no leader")
    foreign.stop(2)
    cluster.settle()
    for id, status in cluster.statuses().items():
        run.equal(status["view"], before[id]["view"], f"view of replica {id}")


if __name__ == "__main__":
    main()
