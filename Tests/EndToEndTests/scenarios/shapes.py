"""Clusters of other shapes than three replicas on TCP with the defaults."""

import mpx
from harness import main, scenario
from load import Load
from mpx import NO_FORWARD, OK, OPEN, REDIRECT, SUBMIT, add, get, number, put, some


def serve(run, cluster):
    """Through each replica; with as many down as may be; with all again."""
    client = cluster.client().open()
    count = 0
    for id in cluster.ids:
        count += 1
        run.reply(cluster.link(id).call(SUBMIT, add(b"served", 1)), f"through replica {id}", status=OK, replica=id,
                  body=some(number(count)))
    down = run.random.sample(cluster.ids, (len(cluster.ids) - 1) // 2)
    cluster.kill9(*down)
    for _ in range(5):
        count += 1
        run.reply(client.submit(add(b"served", 1)), f"with {down} of {cluster.ids} down", status=OK,
                  body=some(number(count)))
    cluster.start(*down)
    cluster.settle()
    for id in cluster.ids:
        run.reply(cluster.link(id).call(SUBMIT, get(b"served")), f"through replica {id} in the end", status=OK,
                  body=some(number(count)))


@scenario
def numbers_of_replicas(run):
    """One, two, four and nine."""
    for replicas in (1, 2, 4, 9):
        cluster = run.cluster(replicas=replicas, name=f"of-{replicas}").start_all()
        serve(run, cluster)
        cluster.stop(*cluster.ids)


@scenario
def sparse_ids(run):
    """Ids that are no indices, in no order, with gaps: views go round by ascending id."""
    cluster = run.cluster(ids=[65535, 7, 300]).start_all()
    leader = cluster.leader()
    ascending = sorted(cluster.ids)
    for id in cluster.ids:
        status = cluster.status(id)
        run.equal((status["id"], ascending[status["view"] % 3]), (id, leader), "id, and the leader by the view")
        link = cluster.link(id)
        reply = link.call(OPEN, flags=NO_FORWARD)
        if id == leader:
            run.reply(reply, "OPEN at the leader", status=OK, replica=id)
        else:
            run.reply(reply, "OPEN at a follower", status=REDIRECT, replica=id, body=cluster.endpoint(leader).encode())
    serve(run, cluster)


@scenario
def local_sockets(run):
    """ipc:// in place of tcp://, for peers and clients."""
    cluster = run.cluster(ipc=True).start_all()
    leader = cluster.leader()
    reply = cluster.link(cluster.followers()[0]).call(OPEN, flags=NO_FORWARD)
    run.reply(reply, "OPEN at a follower", status=REDIRECT, body=cluster.endpoint(leader).encode())
    serve(run, cluster)


@scenario
def narrow_pipeline(run):
    """A window of one instance, the smallest batches, requests that are larger than a batch, and clients that wait for
    a delay.
    """
    cluster = run.cluster(protocol={"window": 1, "batch_bytes": 4096, "batch_delay_us": 2000}).start_all()
    load = Load(run, cluster, workers=6)
    client = cluster.client(1).open()
    for n in range(12):
        value = run.random.randbytes(1_000_000)
        client.submit(put(b"large", value))
        run.equal(client.query(get(b"large")).body, some(value), "a value of a million bytes")
        if n % 4 == 3:
            victim = run.random.choice(cluster.ids)
            cluster.kill9(victim)
            cluster.start(victim)
    load.goes_on(20)
    load.finish()
    serve(run, cluster)


@scenario
def small_batches(run):
    """More batches of one small command than the log has slots (8,192 in 8 MiB): slots are used again before its bytes
    are.
    """
    cluster = run.cluster().start_all()
    client = cluster.client().open()
    count = 9_000
    for n in range(1, count + 1):
        reply = client.submit(add(b"small", 1))
        if reply.status != OK or n == count:
            run.reply(reply, f"command {n}", status=OK, body=some(number(n)))
    cluster.settle()
    run.check(cluster.status(cluster.leader())["decided"] > 8192, "more instances than slots")


if __name__ == "__main__":
    main()
