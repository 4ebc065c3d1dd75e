"""A replica that was away for longer than any log reaches takes the state of another one, whoever is killed meanwhile."""

import os
import re
import signal
import threading
import time

import mpx
from harness import eventually, main, scenario
from load import Load
from mpx import LOCAL, OK, QUERY, SUBMIT, add, get, put, some

VALUE = 400_000


def prepare(run, workers=3, bytes=20 << 20, **sections):
    """A cluster with a load that goes on; one follower was killed, and the logs of the others have left it behind."""
    cluster = run.cluster(**sections).start_all()
    load = Load(run, cluster, workers=workers)
    load.goes_on(20)
    away = run.random.choice(cluster.followers())
    stood = cluster.status(away)["executed"]
    cluster.kill9(away)
    leave_behind(run, cluster, away, stood, bytes)
    return cluster, load, away


def leave_behind(run, cluster, away, stood, bytes=20 << 20):
    """Writes until no running replica has in its log what comes after `stood`."""
    client = cluster.client(cluster.leader()).open()
    written = 0
    while written < bytes or min(floor(cluster, id) for id in cluster.ids if id != away) <= stood + 1:
        client.submit(put(b"large %d" % (written // VALUE % 20), run.random.randbytes(VALUE)))
        written += VALUE
    client.close()


def floor(cluster, id):
    with __import__("urllib.request").request.urlopen(cluster.http(id) + "/metrics", timeout=5) as answer:
        return int(re.search(r"^mpaxos_log_floor_instance (\d+)", answer.read().decode(), re.M).group(1))


def says(cluster, id, text, deadline=30.0):
    """Waits until the log of a replica has the text, looking often."""
    process = cluster.processes[id]
    return eventually(lambda: text in process.log(), f"replica {id} says {text!r}", deadline, pause=0.0005)


def giver(cluster, away):
    """The id of the replica whose state the replica takes, or took last."""
    return int(re.findall(r"takes the state of replica (\d+)", cluster.processes[away].log())[-1])


def is_back(run, cluster, away, load):
    """It serves, and has what the others have; nothing is left of the transfer."""
    cluster.await_ready(away)
    load.goes_on(20)
    load.finish()
    status = cluster.status(away)
    run.check(status["role"] in ("follower", "leader"), f"the role of the replica that is back: {status['role']}")
    folder = os.path.dirname(cluster.pools(away)[1])
    for id in cluster.ids:
        folder = os.path.dirname(cluster.pools(id)[1])
        run.equal(sorted(os.listdir(folder)), ["acceptor.pool", "state.pool"], f"files of replica {id}")
        if cluster.alive(id):
            with open(f"/proc/{cluster.processes[id].pid}/maps") as maps:
                gone = [line for line in maps if "state.pool" in line and "(deleted)" in line]
            run.equal(gone, [], f"mappings of pools that are gone, of replica {id}")
    cluster.stop(*cluster.ids)
    digests = set()
    for id in cluster.ids:
        done = execute("digest", "--pool", cluster.pools(id)[1])
        run.check(done.code == 0, f"digest of replica {id}: {done}")
        digests.add(done.output)
        done = execute("dump", "--pool", cluster.pools(id)[1], "--verify")
        run.check(done.code == 0, f"verification of replica {id}: {done}")
    run.check(len(digests) == 1, f"digests differ: {digests}")
    # What is in place opens again.
    cluster.start_all()
    cluster.settle()


@scenario
def catches_up(run):
    """Under load, in the same process, with exactly one execution of each command."""
    cluster, load, away = prepare(run, http=True)
    pid = cluster.launch(away).pid
    is_back(run, cluster, away, load)
    log = cluster.history[3].log()
    run.check(cluster.history[3].pid == pid and "takes the state of replica" in log, "it took the state of another replica")


from harness import execute

if __name__ == "__main__":
    main()
