"""What pools were formatted for: a start under another topology is refused, peers that differ do not link, and both say
which value it is."""

import os
import shutil

from harness import Ports, eventually, execute, main, scenario
from mpx import OK, SUBMIT, add, get, number, put, some

SIZES = {
    "state_size": ("storage", "32 MiB", "48MiB", "48 MiB"),
    "sessions": ("client", "64", 128, "128"),
    "max_request": ("client", "64 KiB", "128KiB", "128 KiB"),
}


def small(run, **options):
    return run.cluster(client={"sessions": 64, "max_request": "64KiB"}, **options)


def refused(run, cluster, id, what, *words):
    """Replica `id` does not start, with one sentence that names its pools and has the words."""
    done = execute("run", "--topology", cluster.topology, "--id", str(id), deadline=30)
    run.finished(done, what, 3, "")
    sentence = done.errors.strip().splitlines()[-1] if done.errors.strip() else ""
    for word in (os.path.dirname(cluster.pools(id)[0]), *words):
        run.check(word in sentence, f"{what}: the sentence says {word!r}: {sentence!r}")


def change(cluster, section, key, value):
    """Another value in the topology file; returns what brings the old one back."""
    values = cluster.sections[section]
    before = dict(values)

    def restore():
        values.clear()
        values.update(before)
        cluster.write_topology()

    values[key] = value
    cluster.write_topology()
    return restore


@scenario
def edited_sizes(run):
    """What the pools were formatted with is edited in the file: refused, not ignored. What is local may change."""
    cluster = small(run, replicas=1).start_all()
    client = cluster.client().open()
    client.submit(add(b"sum", 1))
    cluster.stop(0)
    for key, (section, formatted, written, edited) in SIZES.items():
        restore = change(cluster, section, key, written)
        refused(run, cluster, 0, f"an edited {key}", f"{key} = {formatted}", f"{key} = {edited}", "formatted", "back")
        restore()
    both = [change(cluster, "client", "sessions", 16), change(cluster, "client", "max_request", "1KiB")]
    refused(run, cluster, 0, "two values edited",
            "sessions = 16", "sessions = 64", "max_request = 1 KiB", "max_request = 64 KiB")
    for restore in reversed(both):
        restore()

    # Spelled otherwise, it is the same.
    change(cluster, "client", "max_request", 64 << 10)
    change(cluster, "storage", "state_size", "32768KiB")
    for section, key, value in (
            ("storage", "log_size", "16MiB"), ("protocol", "window", 8), ("protocol", "batch_bytes", 8192),
            ("protocol", "batch_delay_us", 10), ("protocol", "heartbeat_ms", 60), ("protocol", "suspect_ms", 700),
            ("client", "max_outstanding", 100), ("client", "socket", "libzmq-router"), ("pipeline", "io_threads", 2),
            ("pipeline", "threads", "staged")):
        change(cluster, section, key, value)
    cluster.ports[0] = (Ports.take(), *cluster.ports[0][1:])
    cluster.write_topology()
    cluster.start(0)
    run.reply(client.submit(add(b"sum", 1)), "with other local values", status=OK, body=some(number(2)))
    cluster.stop(0)
    state_size(run, cluster, client)


def state_size(run, cluster, client):
    """A pool of another format beside the one that fits is refused for what it is."""
    acceptor, state = cluster.pools(0)
    folder = os.path.dirname(acceptor)
    shutil.move(folder, folder + ".kept")
    restore = change(cluster, "storage", "state_size", "48MiB")
    cluster.format(0)
    restore()
    for own, other in ((acceptor, state), (state, acceptor)):
        shutil.copyfile(os.path.join(folder + ".kept", os.path.basename(own)), own)
        refused(run, cluster, 0, f"the {os.path.basename(other)} of another format", other,
                "state_size = 48 MiB", "state_size = 32 MiB")
        shutil.rmtree(folder)
        restore = change(cluster, "storage", "state_size", "48MiB")
        cluster.format(0)
        restore()
    shutil.rmtree(folder)
    shutil.move(folder + ".kept", folder)
    cluster.start(0)
    run.reply(client.submit(add(b"sum", 1)), "with its own pools again", status=OK, body=some(number(3)))


@scenario
def edited_members(run):
    """{0, 1, 2} is edited to {0, 1, 3}, or grown to five, under pools that exist: who could forget does not start."""
    cluster = small(run).start_all()
    cluster.stop(0)
    client = cluster.client(1).open()
    run.reply(client.submit(put(b"kept", b"value")), "a write while replica 0 is down", status=OK)
    cluster.stop(1, 2)
    before = list(cluster.ids)
    for ids in ([0, 1, 3], [0, 1, 2, 3, 4], [0, 1]):
        cluster.ids = ids
        for id in ids:
            cluster.ports.setdefault(id, (Ports.take(), Ports.take(), None))
        cluster.write_topology()
        members = ", ".join(map(str, ids))
        for id in (0, 1):
            refused(run, cluster, id, f"members edited to {members}",
                    "members = 0, 1, 2", f"members = {members}", "put them back")
    # A replica that is new starts, and is alone.
    cluster.ids = [0, 1, 3]
    cluster.write_topology()
    cluster.format(3)
    stranger = cluster.launch(3)
    eventually(lambda: cluster.status(3)["role"], "replica 3 lives")
    own = cluster.topology
    cluster.ids, cluster.topology = before, own + ".before"
    cluster.write_topology()
    cluster.start(*before)
    reason = "replica 3 has members = 0, 1, 3"
    for id, process in [(3, stranger), (0, cluster.processes[0]), (1, cluster.processes[1])]:
        eventually(lambda: any(reason in line and "members = 0, 1, 2" in line for line in process.log().splitlines()),
                   f"the log of replica {id} says which members differ")
    eventually(lambda: all(reason in (peer["refusal"] or "") for peer in cluster.status(3)["peers"]),
               "STATUS of replica 3 says it")
    run.equal(stranger.output(), "", "the new replica does not become ready")
    for id in before:
        run.reply(cluster.link(id).call(SUBMIT, get(b"kept")), f"through replica {id}", status=OK, body=some(b"value"))
    cluster.stop(3)
    cluster.settle()


@scenario
def peers_that_differ(run):
    """One of three formatted with another value: the two others go on without it, and all three say why."""
    for odd, (key, (section, usual, written, other)) in zip((2, 0, 1), SIZES.items()):
        one_differs(run, odd, section, key, written, f"{key} = {usual}", f"{key} = {other}")


def one_differs(run, odd, section, key, written, usual, other):
    cluster = small(run, name=f"differs-{odd}").start_all()
    others = [id for id in cluster.ids if id != odd]
    client = cluster.client(others[0]).open()
    cluster.stop(odd)
    folder = os.path.dirname(cluster.pools(odd)[0])
    shutil.move(folder, folder + ".kept")
    own = cluster.topology
    cluster.topology = own + ".odd"
    restore = change(cluster, section, key, written)
    cluster.format(odd)
    cluster.launch(odd)
    cluster.topology = own
    restore()

    def told(text):
        return all(word in (text or "") for word in (f"replica {odd} has {other}", usual))

    def refusing(id):
        status = cluster.status(id)
        return any(told(peer["refusal"]) for peer in status["peers"]) and status

    for id in cluster.ids:
        eventually(lambda: any(map(told, cluster.processes[id].log().splitlines())),
                   f"the log of replica {id} says that {key} differs")
        found = eventually(lambda: refusing(id), f"STATUS of replica {id} says that {key} differs")
        for peer in found["peers"] if id != odd else ():
            differs = peer["id"] == odd
            run.equal((peer["connected"], told(peer["refusal"])), (not differs, differs),
                      f"replica {peer['id']} in STATUS of replica {id}")
    client.endpoints = [cluster.endpoint(id) for id in others]
    for n in range(10):
        run.reply(client.submit(add(b"sum", 1)), f"without the replica of another {key}", status=OK,
                  body=some(number(n + 1)))
    eventually(lambda: all(told(peer["refusal"]) and not peer["connected"] for peer in cluster.status(odd)["peers"]),
               "it is refused by all")
    run.equal(cluster.processes[odd].output(), "", f"a replica of another {key} does not become ready")
    run.equal(cluster.status(odd)["position"], 0, "what it has executed")
    done = execute("status", "--topology", cluster.topology)
    run.finished(done, "status with a replica of another format", 0)
    for id in others:
        begin = tuple(f"replica {a} and replica {b} are not linked: " for a, b in ((id, odd), (odd, id)))
        lines = [line for line in done.output.splitlines() if line.startswith(begin)]
        run.check(len(lines) == 1 and told(lines[0]), f"the table says it once for replica {id}: {done.output}")

    cluster.stop(odd)
    shutil.rmtree(folder)
    shutil.move(folder + ".kept", folder)
    cluster.start(odd)
    cluster.settle()
    for id in cluster.ids:
        eventually(lambda: [peer["refusal"] for peer in cluster.status(id)["peers"]] == [None, None],
                   f"no refusals in STATUS of replica {id} in the end", 5)


@scenario
def dumped(run):
    """`mpaxos dump` shows what a pool was formatted for."""
    cluster = small(run, replicas=1)
    for pool in cluster.pools(0):
        done = run.finished(execute("dump", "--pool", pool), "dump", 0)
        for fact in ("members = 0", "max_request = 64 KiB", "sessions = 64", "state_size = 32 MiB",
                     "machine = 'KeyValueService' version 1"):
            run.check(fact in done.output, f"dump says {fact!r}: {done.output}")


if __name__ == "__main__":
    main()
