"""A replica that was away for longer than any log reaches takes the state of another one, whoever is killed
meanwhile.
"""

import json
import os
import re
import signal
import time
import urllib.request

import mpx
from harness import eventually, execute, main, scenario
from keyring import Pair
from load import Load
from mpx import OK, SUBMIT, get, put, some

VALUE = 400_000
KEYS = 50


def floor(cluster, id):
    with urllib.request.urlopen(cluster.http(id) + "/metrics", timeout=5) as answer:
        return int(re.search(r"^mpaxos_log_floor_instance (\d+)", answer.read().decode(), re.M).group(1))


def executed(cluster, id):
    """By its pool."""
    return json.loads(execute("dump", "--pool", cluster.pools(id)[1], "--json").output)["state"]["executed"]


def leave_behind(run, cluster, *away, size=VALUE, ahead=0):
    """Writes until no other running replica has in its log what comes after what those who are away have executed, nor
    so many instances more."""
    stood = [executed(cluster, id) for id in away]
    others = [id for id in cluster.ids if id not in away]
    client = cluster.client(others[0]).open()
    for n in range(10_000):
        client.submit(put(b"large %d" % (n % KEYS), run.random.randbytes(size)))
        if n >= KEYS and n % 5 == 0 and min(floor(cluster, id) for id in others) > max(stood) + 1 + ahead:
            break
    client.close()


def prepare(run, away=1, **sections):
    """A cluster under a load that goes on, with followers that were killed and left behind."""
    cluster = run.cluster(http=True, storage={"state_size": "64MiB"}, **sections).start_all()
    load = Load(run, cluster, workers=3)
    load.goes_on(20)
    gone = run.random.sample(cluster.followers(), away)
    cluster.kill9(*gone)
    leave_behind(run, cluster, *gone)
    return cluster, load, gone


def says(cluster, id, text, deadline=30.0):
    """Waits until the log of a replica has the text, looking often; returns the log."""
    process = cluster.processes[id]
    return eventually(lambda: (lambda log: text in log and log)(process.log()), f"replica {id} says {text!r}", deadline,
                      0.0005)


def giver(log):
    """The id of the replica whose state is taken."""
    return int(re.findall(r"takes the state of replica (\d+)", log)[-1])


def incoming(cluster, id):
    return cluster.pools(id)[1] + ".incoming"


def all_are_one(run, cluster, load, *gone):
    """The load is as it should be at each replica, by its own state; so are the pools, of which nothing is left
    over.
    """
    load.goes_on(20)
    load.finish()
    for id in cluster.ids:
        run.equal(sorted(os.listdir(os.path.dirname(cluster.pools(id)[1]))), ["acceptor.pool", "state.pool"],
                  f"files of replica {id}")
        with open(f"/proc/{cluster.processes[id].pid}/maps") as maps:
            unlinked = [line for line in maps if ".pool" in line and "deleted" in line]
        run.equal(unlinked, [], f"pools that are gone and that replica {id} still maps")
    cluster.stop(*cluster.ids)
    digests = {}
    for id in gone:
        for pool in cluster.pools(id):
            run.finished(execute("dump", "--pool", pool, "--verify"), f"dump --verify of {pool}", code=0)
    for id in cluster.ids:
        digests[id] = run.finished(execute("digest", "--pool", cluster.pools(id)[1]), f"digest of replica {id}",
                                   code=0).output
    run.check(len(set(digests.values())) == 1, f"the states differ: {digests}")
    cluster.start_all()
    cluster.settle()


@scenario
def catches_up(run):
    """Under load, in one process: it takes the state of a follower, goes on from the logs, serves."""
    cluster, load, (away,) = prepare(run)
    leader = cluster.leader()
    process = cluster.launch(away)
    cluster.await_ready(away)
    run.check(giver(process.log()) != leader, "the state of a follower is taken, not that of the leader")
    run.check(process.running(), "the process goes on")
    all_are_one(run, cluster, load, away)


@scenario
def with_keys(run):
    """Where replicas and clients have keys: the sockets are made anew when the state has changed, and so is who says
    who may come in.
    """
    cluster, load, (away,) = prepare(run, keys=True)
    process = cluster.launch(away)
    cluster.await_ready(away)
    says(cluster, away, "takes the state of replica")
    run.reply(cluster.link(away, key="reader").call(mpx.PING), "a client with its key", status=mpx.OK)
    run.reply(cluster.link(away, key="reader").call(mpx.OPEN), "and no more rights than before", status=mpx.DENIED)
    stranger = cluster.link(away, key=Pair.new())
    stranger.socket.sndtimeo = 500
    try:
        stranger.call(mpx.PING, timeout=0.5)
        run.check(False, "a stranger is not answered")
    except (mpx.Silent, mpx.zmq.Again):
        pass
    run.check(process.running(), "the process goes on")
    all_are_one(run, cluster, load, away)


@scenario
def while_it_runs(run):
    """One that was not killed but stopped for long: it has clients, and was ready before."""
    cluster = run.cluster(http=True, storage={"state_size": "64MiB"}).start_all()
    load = Load(run, cluster, workers=3)
    load.goes_on(20)
    away = run.random.choice(cluster.followers())
    cluster.processes[away].signal(signal.SIGSTOP)
    # What a leader sends ahead of what a follower acknowledges waits in the sockets: 4 windows of 64.
    leave_behind(run, cluster, away, size=30_000, ahead=300)
    cluster.processes[away].signal(signal.SIGCONT)
    log = says(cluster, away, "takes the state of replica")
    # Not for long: who asks while it takes over is not answered.
    eventually(lambda: cluster.status(away, timeout=1)["ready"], "it is ready again")
    load.goes_on(20)
    # What it has at once taken over is killed once more: the log and the new state belong together.
    cluster.kill9(away)
    cluster.start(away)
    all_are_one(run, cluster, load, away)


@scenario
def damaged_log(run):
    """A batch in the log of the only one that can help is damaged while it runs: it says so, and gives its state
    instead.
    """
    cluster = run.cluster().start_all()
    leader = cluster.leader()
    away, other = cluster.followers()
    client = cluster.client(cluster.ids.index(leader)).open()
    cluster.stop(away)
    marked = os.urandom(64)
    for n in range(60):
        client.submit(put(b"key-%d" % n, marked if n == 30 else b"value"))
    cluster.settle()
    with open(cluster.pools(leader)[0], "r+b") as file:
        content = file.read()
        at = content.index(marked)
        file.seek(at + 5)
        file.write(bytes([content[at + 5] ^ 4]))
    cluster.kill9(other)
    cluster.start(away)
    run.check("takes the state of replica" in cluster.processes[away].log(), "it took the state in place of the log")
    log = cluster.processes[leader].log()
    run.equal(log.count("executed long ago, is damaged"), 1, "lines that say so")
    for n in (0, 30, 59):
        expected = marked if n == 30 else b"value"
        run.reply(cluster.link(away).call(SUBMIT, get(b"key-%d" % n)), f"key {n}", status=OK, body=some(expected))
    run.reply(client.submit(put(b"more", b"value")), "a write by the two", status=OK)
    cluster.start(other)
    cluster.settle()


@scenario
def receiver_is_killed(run):
    """At any moment of it: what it has afterwards is the old state or the new one, and whole."""
    cluster, load, (away,) = prepare(run)
    state = cluster.pools(away)[1]
    stood, interrupted, installed = executed(cluster, away), 0, 0
    rounds = run.rounds or 6
    for round in range(rounds):
        cluster.launch(away)
        if round == 0:
            # Surely in the middle: its giver stands still.
            other = giver(says(cluster, away, "takes the state of replica"))
            cluster.processes[other].signal(signal.SIGSTOP)
            cluster.kill9(away)
            cluster.processes[other].signal(signal.SIGCONT)
        else:
            says(cluster, away,
                 run.random.choice(["cannot catch up", "asks replica", "takes the state", "verified", "info"]))
            time.sleep(run.random.random() * 0.08)
            cluster.kill9(away)
        interrupted += os.path.exists(incoming(cluster, away))
        run.finished(execute("dump", "--pool", state, "--verify"),
                     "dump --verify of the state of a replica that was killed", code=0)
        if executed(cluster, away) > stood:
            installed += 1
            leave_behind(run, cluster, away)
            stood = executed(cluster, away)
    run.check(interrupted > 0, "none was killed in the middle of the transfer")
    print(f"{interrupted} of {rounds} were killed in the middle, {installed} after it", flush=True)
    cluster.start(away)
    all_are_one(run, cluster, load, away)


@scenario
def giver_is_killed(run):
    """In the middle: without it there is no majority, until the receiver has got the state from the leader."""
    cluster, load, (away,) = prepare(run)
    cluster.launch(away)
    other = giver(says(cluster, away, "takes the state of replica"))
    cluster.processes[other].signal(signal.SIGSTOP)
    cluster.kill9(other)
    log = says(cluster, away, "asks replica", 30)
    run.check(f"has the state of replica {other}" not in log, "it was killed in the middle")
    cluster.await_ready(away)
    run.check(giver(cluster.processes[away].log()) != other, "the state came from another replica")
    load.goes_on(20)
    cluster.start(other)
    all_are_one(run, cluster, load, away)


@scenario
def giver_is_silent(run):
    """One that does not answer any more though its link stands is given up."""
    cluster, load, (away,) = prepare(run)
    cluster.launch(away)
    other = giver(says(cluster, away, "takes the state of replica"))
    cluster.processes[other].signal(signal.SIGSTOP)
    says(cluster, away, f"does not get the state of replica {other}: ")
    cluster.await_ready(away)
    cluster.processes[other].signal(signal.SIGCONT)
    all_are_one(run, cluster, load, away)


@scenario
def two_of_five(run):
    """Two at once: each finds a giver."""
    cluster, load, gone = prepare(run, away=2, replicas=5)
    cluster.start(*gone)
    all_are_one(run, cluster, load, *gone)


if __name__ == "__main__":
    main()
