"""Pools of an earlier time, and copies of them: who has forgotten what it voted for does not vote, and is told so."""

import os
import shutil
import signal

from harness import Ports, eventually, execute, main, scenario
from mpx import OK, SUBMIT, add, get, number, put, some

EARLIER = "replica {} runs from pools of an earlier time"


def folder(cluster, id):
    return os.path.dirname(cluster.pools(id)[0])


def ends_refused(run, process, what, *words):
    """A replica that starts, or is up, ends by itself with exit code 3 and a sentence; it was never ready."""
    process.expected_end = True
    run.equal(process.wait(30), 3, f"exit code of {what}")
    last = process.log().strip().splitlines()[-1]
    for word in words:
        run.check(word in last, f"{what}: its last line says {word!r}: {last!r}")
    run.equal(process.output(), "", f"{what} does not become ready")


def told(cluster, id, about):
    """STATUS of a replica says of whom it is that the pools are old."""
    eventually(lambda: any(EARLIER.format(about) in (peer["refusal"] or "") for peer in cluster.status(id)["peers"]),
               f"STATUS of replica {id} says what is wrong with replica {about}")
    eventually(lambda: EARLIER.format(about) in cluster.processes[id].log(), f"the log of replica {id} says it")


def is_met(cluster, id):
    """Only who has met a life can tell it from an earlier one."""
    eventually(lambda: all(peer["connected"] for other in cluster.ids for peer in cluster.status(other)["peers"]),
               f"all meet the newest life of replica {id}")


@scenario
def rolled_back(run):
    """Both pools of a replica put back from a copy made one start earlier: it knows nothing of an acknowledged write,
    and does not vote. Through the one that met it, it learns so, and ends."""
    cluster = run.cluster().start_all()
    cluster.stop(1)
    shutil.copytree(folder(cluster, 1), folder(cluster, 1) + ".copy")
    cluster.start(1)
    client = cluster.client(0).open()
    is_met(cluster, 1)
    cluster.stop(2)
    run.reply(client.submit(put(b"kept", b"value")), "a write by 0 and 1", status=OK)
    cluster.stop(0, 1)
    shutil.move(folder(cluster, 1), folder(cluster, 1) + ".newest")
    shutil.move(folder(cluster, 1) + ".copy", folder(cluster, 1))
    # Replica 2 never heard of the write. Replica 1 is told by 2 and 0, whichever it links to first.
    cluster.launch(2)
    old = cluster.launch(1)
    cluster.launch(0)
    ends_refused(run, old, "the replica on old pools", EARLIER.format(1), "has met", folder(cluster, 1), "newest pools")
    cluster.await_ready(0)
    cluster.await_ready(2)
    for _ in range(2):
        again = execute("run", "--topology", cluster.topology, "--id", "1", deadline=30)
        run.finished(again, "the old pools once more", 3, "")
        run.check(folder(cluster, 1) in again.errors and "cannot be used any more" in again.errors, again.errors)
    for id in (0, 2):
        run.reply(cluster.link(id).call(SUBMIT, get(b"kept")), f"through replica {id}", status=OK, body=some(b"value"))
    shutil.rmtree(folder(cluster, 1))
    shutil.move(folder(cluster, 1) + ".newest", folder(cluster, 1))
    cluster.start(1)
    cluster.settle()


@scenario
def rolled_back_first(run):
    """The replica of the lowest id connects to nobody, so nobody that it can trust tells it: it stays up, refused by
    all, and all say so.
    """
    cluster = run.cluster().start_all()
    cluster.stop(0)
    shutil.copytree(folder(cluster, 0), folder(cluster, 0) + ".copy")
    cluster.start(0)
    is_met(cluster, 0)
    client = cluster.client(1).open()
    run.reply(client.submit(put(b"kept", b"value")), "a write", status=OK)
    cluster.stop(0)
    shutil.move(folder(cluster, 0), folder(cluster, 0) + ".newest")
    shutil.move(folder(cluster, 0) + ".copy", folder(cluster, 0))
    # Its boot count rises with each start and passes the one that was met, which yet is none of its past.
    for start in range(3):
        old = cluster.launch(0)
        for id in cluster.ids:
            told(cluster, id, 0)
        if start < 2:
            cluster.kill9(0)
    # With one of the others it would be a majority.
    cluster.stop(2)
    eventually(lambda: cluster.status(1)["leader"] is None, "replica 1 leads nobody")
    run.equal((cluster.status(0)["leader"], old.output()), (None, ""), "the replica on old pools serves nothing")
    done = execute("status", "--topology", cluster.topology)
    run.check(EARLIER.format(0) in done.output, f"mpaxos status says it: {done.output}")
    cluster.stop(0)
    shutil.rmtree(folder(cluster, 0))
    shutil.move(folder(cluster, 0) + ".newest", folder(cluster, 0))
    cluster.start(0, 2)
    run.reply(cluster.link(0).call(SUBMIT, get(b"kept")), "with its newest pools", status=OK, body=some(b"value"))
    cluster.settle()


@scenario
def started_again_and_again(run):
    """Pools of an earlier time that are started more often than lives are remembered stay refused, also by who was
    restarted meanwhile: whoever has refused one of these starts refuses those that come after it."""
    cluster = run.cluster().start_all()
    cluster.stop(0)
    shutil.copytree(folder(cluster, 0), folder(cluster, 0) + ".copy")
    cluster.start(0)
    is_met(cluster, 0)
    cluster.stop(2)
    run.reply(cluster.client(0).open().submit(put(b"kept", b"value")), "a write by 0 and 1", status=OK)
    cluster.stop(0, 1)
    shutil.move(folder(cluster, 0), folder(cluster, 0) + ".newest")
    shutil.move(folder(cluster, 0) + ".copy", folder(cluster, 0))
    # The one that is up has not seen the write.
    cluster.launch(2)
    for start in range(run.rounds or 40):
        old = cluster.launch(0)
        count = 2 + start
        eventually(lambda: any(f"its boot count is {count}," in (peer["refusal"] or "")
                               for peer in cluster.status(2)["peers"]),
                   f"start {count} of the old pools is refused")
        run.equal(old.output(), "", f"start {count} of the old pools is not ready")
        cluster.kill9(0)
        if start == 20:
            cluster.kill9(2)
            cluster.launch(2)
    shutil.rmtree(folder(cluster, 0))
    shutil.move(folder(cluster, 0) + ".newest", folder(cluster, 0))
    cluster.start(0)
    cluster.await_ready(2)
    run.reply(cluster.link(0).call(SUBMIT, get(b"kept")), "with its newest pools", status=OK, body=some(b"value"))


@scenario
def one_pool_of_two(run):
    """One of the two pools comes from the start before: refused at the open."""
    cluster = run.cluster().start_all()
    client = cluster.client(0).open()
    for name, older, newer in (("acceptor.pool", "log", "state"), ("state.pool", "state", "log")):
        path = os.path.join(folder(cluster, 1), name)
        cluster.stop(1)
        shutil.copyfile(path, path + ".copy")
        cluster.start(1)
        run.reply(client.submit(add(b"sum", 1)), "a write meanwhile", status=OK)
        cluster.stop(1)
        os.rename(path, path + ".newest")
        os.rename(path + ".copy", path)
        for _ in range(2):
            done = execute("run", "--topology", cluster.topology, "--id", "1", deadline=30)
            run.finished(done, f"an older {name}", 3, "")
            for word in (path, f"the {older} is older than the {newer}", "times", "bring back the newest"):
                run.check(word in done.errors, f"an older {name}: the sentence says {word!r}: {done.errors!r}")
        os.replace(path + ".newest", path)
        cluster.start(1)
    run.reply(client.submit(add(b"sum", 1)), "after all", status=OK, body=some(number(3)))
    cluster.settle()


@scenario
def copied(run):
    """A second process on a copy of a replica's pools: on other ports it is called back where the first listens, and is
    nobody; on the ports of the first, when that has stopped, it is of an earlier life, and ends. The first goes on."""
    cluster = run.cluster().start_all()
    cluster.stop(2)
    copy = os.path.join(cluster.directory, "copy")
    shutil.copytree(folder(cluster, 2), os.path.join(copy, "2"))
    cluster.start(2)
    is_met(cluster, 2)
    client = cluster.client(2).open()
    first, own, ports = cluster.processes[2], cluster.topology, cluster.ports[2]

    def launch_copy(at):
        cluster.topology, cluster.ports[2] = own + ".copy", at
        cluster.sections["storage"]["directory"] = copy
        cluster.write_topology()
        process = cluster.launch(2)
        cluster.topology, cluster.ports[2], cluster.processes[2] = own, ports, first
        cluster.sections["storage"]["directory"] = os.path.join(cluster.directory, cluster.name)
        return process

    second = launch_copy((Ports.take(), Ports.take(), None))
    eventually(lambda: second.log().count("refuses this replica: replica 2 was called at") >= 2, "both others say so")
    for id in cluster.ids:
        links = [peer["connected"] for peer in cluster.status(id)["peers"]]
        run.equal(links, [True, True], f"links of replica {id}")
    for n in range(10):
        run.reply(client.submit(add(b"sum", 1)), "through the first", status=OK, body=some(number(n + 1)))
    run.equal(second.output(), "", "the copy is not ready")
    second.expected_end = True
    second.signal(signal.SIGTERM)
    run.equal(second.wait(30), 0, "exit code of the copy")
    cluster.stop(2)
    third = launch_copy(ports)
    ends_refused(run, third, "the copy in the place of the first", EARLIER.format(2), "has met", copy)
    cluster.start(2)
    cluster.settle()


if __name__ == "__main__":
    main()
