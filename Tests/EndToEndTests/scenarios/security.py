"""Clusters with keys: clients of other libraries get in with theirs."""

import ctypes.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import zmq
import zmq.utils.z85

import mpx
from garbage import Others, metric
from harness import Skipped, eventually, execute, main, scenario
from keyring import Pair
from mpx import CLOSE, DENIED, MALFORMED, OK, OPEN, PING, QUERY, STATUS, SUBMIT, add, get, number, put, some

CLIENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients")


def talk(run, cluster, id, *command):
    """Runs a program of `clients/`, which writes and reads a key of its own through replica `id`, with the file of a
    key pair that it loads with its library's means."""
    done = subprocess.run(
        [*command, cluster.endpoint(id), cluster.keys.client_file("writer"), cluster.keys.replicas[id].text],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    run.equal((done.returncode, done.stdout, done.stderr), (0, "", ""),
              f"{' '.join(map(os.path.basename, command))} through replica {id}")


def built(run, source, *options):
    """The program that a C compiler makes of `source`."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise Skipped("there is no C compiler")
    program = os.path.join(run.folder("client-"), "curve_client")
    done = subprocess.run(
        [compiler, "-Wall", "-Werror", "-o", program, os.path.join(CLIENTS, source), *options], capture_output=True,
        text=True)
    if done.returncode != 0:
        raise AssertionError(f"{source} does not compile: {done.stderr}")
    return program


def reload(cluster, *ids):
    """SIGHUP, and waits until the keys were read again, or were found wrong."""
    for id in ids or cluster.ids:
        process = cluster.processes[id]

        def answers():
            log = process.log()
            return log.count("keys were read again") + log.count("keys are as they were")

        before = answers()
        process.signal(signal.SIGHUP)
        eventually(lambda: answers() > before, f"replica {id} answers SIGHUP")


@scenario
def roles(run):
    """What each role may do, through each replica and each kind of libzmq's sockets."""
    for kind in ("router", "rep"):
        cluster = run.cluster(keys=True, http=True, name=f"e2e-{kind}", client={"socket": kind}).start_all()
        session = cluster.client(0).open()
        session.submit(put(b"a", b"1"))
        for id in cluster.ids:
            reader, writer, admin = (cluster.link(id, key=key) for key in ("reader", "writer", "admin"))
            for link in (reader, writer, admin):
                run.reply(link.call(PING, b"x"), f"{kind}: PING", status=OK, body=b"x")
                run.reply(link.call(STATUS), f"{kind}: STATUS", status=OK)
                run.reply(link.call(QUERY, get(b"a")), f"{kind}: QUERY", status=OK, body=some(b"1"))
                run.reply(link.call(QUERY, get(b"a"), flags=mpx.LOCAL), f"{kind}: LOCAL", status=OK)
                # No command changes the cluster yet: whatever may come is unknown to all.
                for command in range(7, 20):
                    run.reply(link.call(command), f"{kind}: command {command}", status=MALFORMED)
            denied = cluster.status(id)["denied"]
            for command, body, given in (
                (OPEN, b"", 0), (SUBMIT, put(b"a", b"2"), 0), (SUBMIT, put(b"a", b"2"), session.session),
                (CLOSE, b"", session.session)):
                run.reply(reader.call(command, body, session=given, sequence=99),
                          f"{kind}: a reader's command {command}", status=DENIED)
            run.equal(cluster.status(id)["denied"], denied + 4, f"{kind}: denied")
            run.equal(metric(cluster, id, "mpaxos_denied_total"), denied + 4, f"{kind}: denied, in /metrics")
            run.reply(reader.call(SUBMIT, b"nonsense"), f"{kind}: what is malformed, from a reader", status=DENIED)
            run.reply(writer.call(SUBMIT, put(b"b", b"%d" % id)), f"{kind}: a writer's", status=OK)
            run.reply(admin.call(SUBMIT, put(b"c", b"%d" % id)), f"{kind}: an admin's", status=OK)
        run.reply(session.query(get(b"a")), f"{kind}: nothing was changed by a reader", status=OK, body=some(b"1"))
        run.reply(session.submit(add(b"n", 1)), f"{kind}: the session is still there, and its sequence not used up",
                  status=OK)
        for id in cluster.ids:
            run.equal(cluster.status(id)["security"], "curve", f"{kind}: security in STATUS")
        cluster.settle()
        cluster.stop(*cluster.ids)


@scenario
def withdrawn(run):
    """A client's key is withdrawn and given again while others are served: what it has connected is of no use from then
    on.
    """
    cluster = run.cluster(keys=True, http=True).start_all()
    keys = cluster.keys
    late = Pair.new()
    keys.pairs["late"] = late
    others = Others(run, cluster)
    others.go_on()

    def asks(key, **options):
        return [cluster.link(id, key=key, **options) for id in cluster.ids]

    for link in asks("late"):
        run.check(silent(link), "a key that nobody knows")
    keys.clients.append(("late", late.text, "write"))
    keys.write_clients()
    reload(cluster)
    links = asks("late")
    for link in links:
        run.reply(link.call(SUBMIT, add(b"late", 1)), "a key that was added", status=OK)
    others.go_on()
    keys.clients[-1] = ("late", late.text, "read")
    keys.write_clients()
    reload(cluster)
    for link in links:
        run.reply(link.call(SUBMIT, add(b"late", 1)), "a key that lost its role, on a connection that stands",
                  status=DENIED)
        run.reply(link.call(PING), "and may read still", status=OK)
    good = list(keys.clients)
    keys.clients.append(("double", late.text, "write"))
    keys.write_clients()
    reload(cluster)
    for link in links:
        run.reply(link.call(PING), "a file with a fault changes nothing", status=OK)
    run.check("client[3].public_key" in cluster.processes[0].log(), "and the log says where it is")
    keys.clients = good[:-1]
    keys.write_clients()
    reload(cluster)
    others.go_on()
    for link in links:
        run.check(silent(link), "a key that was withdrawn, on a connection that stands")
    run.equal(cluster.client().query(get(b"late")).body, some(number(3)), "what it did")
    for id in cluster.ids:
        eventually(lambda: metric(cluster, id, "mpaxos_client_keys_refused_total") > 0,
                   "it comes again, and is refused")
    keys.clients = good
    keys.write_clients()
    reload(cluster)
    run.reply(cluster.link(0, key="late").call(PING), "a key that is given again", status=OK)
    others.finish()
    cluster.settle()


def silent(link):
    """Whether nothing comes over a link, or none stands."""
    if link.socket:
        link.socket.sndtimeo = 500
    try:
        link.call(PING, timeout=0.5)
        return False
    except (mpx.Silent, mpx.zmq.Again):
        return True


@scenario
def withdrawn_at_the_start(run):
    """A key is withdrawn while a replica starts that has read the file of clients already: SIGHUP counts then, too."""
    cluster = run.cluster(replicas=1, keys=True)
    keys = cluster.keys
    late = Pair.new()
    keys.pairs["late"] = late
    # So many that they take a while.
    keys.clients += [(f"client {n}", zmq.utils.z85.encode(os.urandom(32)).decode(), "read") for n in range(20_000)]
    keys.clients.append(("late", late.text, "write"))
    keys.write_clients()
    size = os.path.getsize(keys.clients_file)
    cluster.launch(0)
    pid = cluster.processes[0].pid

    def has_read():
        with open(f"/proc/{pid}/status") as status, open(f"/proc/{pid}/io") as io:
            blocked = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk:"))
            read = next(int(line.split()[1]) for line in io if line.startswith("rchar:"))
        return blocked & 1 << signal.SIGHUP - 1 and read >= size

    eventually(has_read, "the replica has read the file", pause=0.001)
    del keys.clients[3:]
    keys.write_clients()
    cluster.processes[0].signal(signal.SIGHUP)
    cluster.await_ready(0)
    eventually(lambda: "keys were read again: 1 of replicas, 3 of clients" in cluster.processes[0].log(),
               "the keys are read again")
    run.check(silent(cluster.link(0, key="late")), "a key that was withdrawn during the start")
    run.reply(cluster.link(0).call(PING), "another", status=OK)


@scenario
def rotated(run):
    """Each replica gets another key while the cluster serves: others lose no request, and in the end the old keys are
    good for nothing.
    """
    cluster = run.cluster(keys=True, http=True).start_all()
    keys = cluster.keys
    others = Others(run, cluster)
    others.go_on()
    old = {}
    for id in cluster.ids:
        old[id], new = keys.replicas[id], Pair.new()
        # The order of the two does not matter.
        keys.pinned[id] = [old[id].text, new.text] if id % 2 else [new.text, old[id].text]
        cluster.write_topology()
        reload(cluster)
        others.go_on()
        new.write(keys.replica_file(id), f"replica-{id}")
        # Clients that pin the key of this replica know the new one from here on; the others are asked meanwhile.
        others.pause(id)
        cluster.stop(id)
        keys.replicas[id] = new
        cluster.start(id)
        eventually(lambda: all(peer["connected"] for other in cluster.ids for peer in cluster.status(other)["peers"]),
                   "all are linked")
        others.resume(id)
        keys.pinned[id] = new.text
        cluster.write_topology()
        reload(cluster)
        others.go_on()
        run.check(all(peer["connected"] for other in cluster.ids for peer in cluster.status(other)["peers"]),
                  "the links stand")
    others.pause(2)
    cluster.stop(2)
    old[2].write(keys.replica_file(2), "replica-2")
    done = execute("run", "--topology", cluster.topology, "--id", "2")
    run.finished(done, "with its old key", 3)
    run.check("which is none of replica 2" in done.errors and keys.replica_file(2) in done.errors,
              f"and it says so: {done.errors!r}")
    keys.replicas[2].write(keys.replica_file(2), "replica-2")
    cluster.start(2)
    others.resume(2)
    others.finish()
    for id in cluster.ids:
        run.equal(metric(cluster, id, "mpaxos_client_connections_cut_off_total"), 0,
                  f"connections that replica {id} cut off")
    cluster.settle()


@scenario
def peers_alone(run):
    """Replicas with keys, and clients in the clear, as a cluster may be on its way to keys."""
    cluster = run.cluster(keys="peers").start_all()
    client = cluster.client().open()
    run.reply(client.submit(add(b"n", 1)), "a client in the clear", status=OK, body=some(number(1)))
    for id in cluster.ids:
        run.equal(cluster.status(id)["security"], "peers", "security in STATUS")
        run.check("clients are in the clear" in cluster.processes[id].log(), "and it says so")
    cluster.kill9(cluster.leader())
    run.reply(client.submit(add(b"n", 1)), "after a kill", status=OK, body=some(number(2)))


@scenario
def mixed(run):
    """A replica whose topology has keys and one whose topology has none, or other ones: they do not link, both say why,
    and the others go on."""
    cluster = run.cluster(keys="peers").start_all()
    keys = cluster.keys
    client = cluster.client(0).open()
    plain = cluster.topology + ".plain"
    with open(cluster.topology) as file:
        text = file.read()
    with open(plain, "w") as file:
        file.write("\n".join(line for line in text.split("\n") if not line.startswith("public_key")))
    shared = cluster.topology

    def alone(topology, sentences):
        cluster.stop(2)
        cluster.topology = topology
        cluster.launch(2)
        cluster.topology = shared
        for id, text in sentences:
            eventually(lambda: text in cluster.processes[id].log(), f"replica {id} says {text!r}")
        run.equal([peer["connected"] for peer in cluster.status(2)["peers"]], [False, False],
                  "the links of the one that differs")
        run.reply(client.submit(add(b"n", 1)), "the others go on", status=OK)

    alone(plain, [(2, "has a key, and the topology of replica 2 has none")])
    run.equal(cluster.status(2)["security"], "none", "security in STATUS")
    strange = cluster.topology + ".strange"
    with open(strange, "w") as file:
        file.write(text.replace(keys.replicas[0].text, Pair.new().text))
    cluster.stop(2)
    cluster.topology = strange
    cluster.launch(2)
    cluster.topology = shared
    eventually(
        lambda: "breaks off the handshake: it has another key than the topology has for replica 0" in cluster.processes[
            2].log(), "it says so")
    eventually(lambda: [peer["connected"] for peer in cluster.status(2)["peers"]] == [False, True],
               "the other link stands")
    cluster.stop(2)
    cluster.start(2)
    eventually(lambda: [peer["connected"] for peer in cluster.status(2)["peers"]] == [True, True], "all are linked")
    # The key with which replica 2 runs is withdrawn by the others: its links end, and it is told why.
    good, keys.pinned[2] = keys.pinned[2], Pair.new().text
    cluster.write_topology()
    reload(cluster, 0, 1)
    eventually(lambda: [peer["connected"] for peer in cluster.status(2)["peers"]] == [False, False], "its links end")
    eventually(lambda: "does not know the key of replica 2" in cluster.processes[2].log(), "it says why")
    run.reply(client.submit(add(b"n", 1)), "the others go on", status=OK)
    keys.pinned[2] = good
    cluster.write_topology()
    reload(cluster, 0, 1)
    eventually(lambda: [peer["connected"] for peer in cluster.status(2)["peers"]] == [True, True],
               "all are linked again")
    cluster.settle()


@scenario
def interop(run):
    """pyzmq and CZMQ."""
    if not ctypes.util.find_library("czmq"):
        raise Skipped("there is no libczmq: scripts/setup installs it")
    cluster = run.cluster(keys=True).start_all()
    talk(run, cluster, 0, sys.executable, os.path.join(CLIENTS, "curve_client.py"))
    talk(run, cluster, 1, built(run, "curve_client.c", "-l:libczmq.so.4"))


@scenario
def interop_java(run):
    """JeroMQ, whose CURVE is not libsodium's."""
    if not shutil.which("java") or not os.environ.get("MPAXOS_JEROMQ"):
        raise Skipped(
            "there is no java, or MPAXOS_JEROMQ does not name a class path of JeroMQ 0.5 or later (docs/testing.md)")
    cluster = run.cluster(keys=True).start_all()
    talk(run, cluster, 2, "java", "-cp", os.environ["MPAXOS_JEROMQ"], os.path.join(CLIENTS, "CurveClient.java"))


if __name__ == "__main__":
    main()
