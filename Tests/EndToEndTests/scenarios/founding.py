"""A cluster is founded once, by all of its members: before that nobody votes, after it pools that were formatted anew
are strangers.
"""

import os
import shutil
import time

from harness import eventually, execute, main, scenario
from mpx import LOCAL, NO_LEADER, OK, OPEN, QUERY, SUBMIT, get, put, some


def waits(run, cluster, id, *others):
    """A replica that is up takes no part, and says for whom it waits."""
    status = eventually(
        lambda: (found := cluster.status(id))["waiting_for"] == list(others) and found,
        f"replica {id} waits for {others}")
    found = {key: status[key] for key in ("role", "founded", "ready", "leader", "view", "decided")}
    run.equal(found, {"role": "joining", "founded": False, "ready": False, "leader": None, "view": 0, "decided": 0},
              f"STATUS of replica {id}")
    run.check("the cluster is not founded yet" in cluster.processes[id].log(), f"the log of replica {id} says so")
    run.equal(cluster.processes[id].output(), "", f"replica {id} is not ready")


def format_anew(cluster, id):
    shutil.rmtree(os.path.dirname(cluster.pools(id)[0]))
    cluster.format(id)


@scenario
def waits_for_all(run):
    """A majority that is up alone serves nobody, whichever it is; with the last one all serve; after that any majority
    is enough.
    """
    last = run.random.choice(range(3))
    cluster = run.cluster()
    early = [id for id in cluster.ids if id != last]
    for id in early:
        cluster.launch(id)
    for id in early:
        waits(run, cluster, id, last)
        link = cluster.link(id)
        for what, reply in (("a GET", link.call(SUBMIT, get(b"k"))),
                            ("a LOCAL query", link.call(QUERY, get(b"k"), flags=LOCAL)),
                            ("OPEN", link.call(OPEN))):
            run.equal(reply.status, NO_LEADER, f"what replica {id} answers to {what}")
    done = execute("status", "--topology", cluster.topology)
    run.finished(done, "mpaxos status", 0)
    for id in early:
        run.check(f"replica {id} waits for replica {last}" in done.output, f"mpaxos status says it: {done.output}")
    # After a crash they meet each other again.
    cluster.kill9(*early)
    for id in early:
        cluster.launch(id)
    for id in early:
        waits(run, cluster, id, last)
    cluster.launch(last)
    for id in cluster.ids:
        cluster.await_ready(id)
        status = cluster.status(id)
        run.equal((status["founded"], status["waiting_for"]), (True, []), f"STATUS of replica {id}")
        run.equal(cluster.processes[id].log().count("the cluster is founded"), 1, f"replica {id} says so, once")
    run.reply(cluster.client(0).open().submit(put(b"k", b"v")), "a write", status=OK)
    cluster.settle()
    for down in cluster.ids:
        cluster.stop(*cluster.ids)
        up = [id for id in cluster.ids if id != down]
        cluster.start(*up)
        run.reply(cluster.link(up[0]).call(SUBMIT, get(b"k")), f"without replica {down}", status=OK, body=some(b"v"))
        cluster.start(down)
    cluster.settle()


@scenario
def first_meetings(run):
    """Two of three were up, one of them lost its pools, and then the third comes for the first time: before the
    founding nothing is lost by that, and the new pools are taken up; after it they are refused, also by who was never
    up together with the old ones again."""
    cluster = run.cluster()
    cluster.launch(0)
    cluster.launch(1)
    waits(run, cluster, 0, 2)
    waits(run, cluster, 1, 2)
    cluster.kill9(0, 1)
    format_anew(cluster, 1)
    cluster.launch(1)
    cluster.launch(2)
    waits(run, cluster, 1, 0)
    waits(run, cluster, 2, 0)
    cluster.launch(0)
    for id in cluster.ids:
        cluster.await_ready(id)
    # Founded, and a write that 2 has not seen.
    cluster.stop(2)
    run.reply(cluster.client(0).open().submit(put(b"kept", b"value")), "a write by 0 and 1", status=OK)
    cluster.stop(0, 1)
    format_anew(cluster, 1)
    anew = cluster.launch(1)
    cluster.launch(2)
    eventually(lambda: "other pools than before" in cluster.processes[2].log() or "by incarnation" in anew.log(),
               "1 and 2 do not take up with each other")
    waits(run, cluster, 1, 0, 2)
    run.equal(cluster.status(2)["leader"], None, "replica 2 finds no majority")
    done = execute("status", "--topology", cluster.topology)
    run.finished(done, "mpaxos status", 0)
    run.check("replica 1 takes no part: the cluster is founded, as replica 2 says" in done.output,
              f"mpaxos status: {done.output}")
    run.check("format all anew" not in anew.log(), f"who met a founded replica is not told to format: {anew.log()}")
    cluster.start(0)
    cluster.await_ready(2)
    for id in (0, 2):
        run.reply(cluster.link(id).call(SUBMIT, get(b"kept")), f"through replica {id}", status=OK, body=some(b"value"))
    waits(run, cluster, 1, 0, 2)


@scenario
def lost_while_linked(run):
    """A replica that had met another does not count it, once that is gone: it may come back with other pools."""
    cluster = run.cluster()
    cluster.launch(0)
    cluster.launch(1)
    waits(run, cluster, 0, 2)
    cluster.kill9(1)
    waits(run, cluster, 0, 1, 2)
    format_anew(cluster, 1)
    cluster.launch(2)
    waits(run, cluster, 0, 1)
    cluster.launch(1)
    for id in cluster.ids:
        cluster.await_ready(id)


@scenario
def formatted_otherwise(run):
    """One replica of a new cluster was formatted for another size: that is what is said, and not that its state is
    damaged.
    """
    cluster = run.cluster(prepare=False)
    for id in (0, 1):
        cluster.format(id)
    cluster.sections["storage"]["state_size"] = "48MiB"
    cluster.write_topology()
    cluster.format(2)
    cluster.launch(2)
    eventually(lambda: cluster.status(2)["role"] == "joining", "replica 2 has read its topology")
    cluster.sections["storage"]["state_size"] = "32MiB"
    cluster.write_topology()
    for id in (0, 1):
        cluster.launch(id)
    eventually(lambda: any("state_size" in (peer["refusal"] or "") for peer in cluster.status(0)["peers"]),
               "it is refused")
    done = execute("status", "--topology", cluster.topology)
    run.finished(done, "mpaxos status", 0)
    run.check("state_size" in done.output and "differ:" not in done.output + done.errors, f"mpaxos status: {done}")


@scenario
def killed_meanwhile(run):
    """Replicas killed at any moment of the founding go on with it when they are back; nobody votes before it, and all
    have the same record after it."""
    for _ in range(run.rounds or 6):
        cluster = run.cluster()
        for id in cluster.ids:
            cluster.launch(id)
        for _ in range(6):
            time.sleep(run.random.uniform(0, 0.08))
            victim = run.random.choice(cluster.ids)
            cluster.kill9(victim)
            cluster.launch(victim)
        for id in cluster.ids:
            cluster.await_ready(id)
        run.reply(cluster.client(0).open().submit(put(b"k", b"v")), "a write", status=OK)
        cluster.settle()
        cluster.stop(*cluster.ids)
        for id in cluster.ids:
            done = execute("dump", "--pool", cluster.pools(id)[0], "--verify")
            run.check(done.code == 0 and "of a founded cluster" in done.output, f"the log of replica {id}: {done}")


if __name__ == "__main__":
    main()
