"""kill -9 of real processes under load: nothing acknowledged is lost, nothing is done twice."""

import struct

import mpx
from harness import eventually, execute, main, scenario
from load import Load
from mpx import BUSY, LOCAL, MALFORMED, NO_LEADER, OK, OPEN, PING, QUERY, STATUS, SUBMIT, add, get, number, some


@scenario
def kills(run):
    """A follower, the leader, all three at once, over and over."""
    cluster = run.cluster().start_all()
    load = Load(run, cluster)
    load.goes_on(20)
    for round in range(run.rounds or 9):
        if round % 3 == 0:
            victims = [run.random.choice(cluster.followers())]
        elif round % 3 == 1:
            victims = [cluster.leader()]
        else:
            victims = list(cluster.ids)
        clean = run.random.random() < 0.15
        print(f"round {round}: {'stop' if clean else 'kill'} {victims} after {load.acknowledged} requests", flush=True)
        cluster.stop(*victims) if clean else cluster.kill9(*victims)
        # A majority goes on by itself; sometimes the victim is back before the others have noticed.
        if len(victims) == 1 and run.random.random() < 0.6:
            load.goes_on(10)
        cluster.start(*victims)
        load.goes_on(run.random.randrange(5, 40))
    load.finish()


@scenario
def kills_in_a_row(run):
    """Replicas are killed again before they are ready, and while others are down: five, of which up to all are down."""
    cluster = run.cluster(replicas=5).start_all()
    load = Load(run, cluster, workers=3)
    for round in range(run.rounds or 4):
        load.goes_on(20)
        victims = run.random.sample(cluster.ids, run.random.randrange(2, 6))
        print(f"round {round}: kill {victims} after {load.acknowledged} requests", flush=True)
        cluster.kill9(*victims)
        for id in victims:
            cluster.launch(id)
        again = run.random.choice(victims)
        eventually(lambda: "info" in cluster.processes[again].log(), f"replica {again} is on its way")
        cluster.kill9(again)
        cluster.launch(again)
        for id in victims:
            cluster.await_ready(id)
    load.finish()


@scenario
def leader_resumes(run):
    """A leader that is back within the suspect time goes on in its view, without an election."""
    cluster = run.cluster(protocol={"suspect_ms": 3000}).start_all()
    load = Load(run, cluster, workers=3)
    load.goes_on(20)
    leader = cluster.leader()
    view = cluster.status(leader)["view"]
    for _ in range(run.rounds or 3):
        cluster.kill9(leader)
        run.equal(cluster.start(leader), [(view, leader)], "view and leader when the old leader is back")
        load.goes_on(20)
        for id, status in cluster.statuses().items():
            run.equal((status["view"], status["leader"]), (view, leader), f"view and leader at replica {id}")
    load.finish()


@scenario
def large_replies(run):
    """The replies of long values, which are kept where the old values lie, after kill -9 of all replicas in the middle
    of a load: a retry gets them to the byte, whoever leads, also when blocks have changed hands many times."""
    cluster = run.cluster().start_all()
    clients = [cluster.client(start=i).open() for i in range(4)]
    sizes = [255, 256, 300, 1000, 4000, 4000, 4000, 20000]
    keys = [b"a", b"a key of some length", b"k" * 1024]
    values = {}

    def another():
        """A command, and the reply that it must get."""
        key = run.random.choice(keys)
        before = mpx.some(values[key]) if key in values else bytes([0])
        if run.random.random() < 0.2:
            values.pop(key, None)
            return mpx.delete(key), before
        values[key] = run.random.randbytes(run.random.choice(sizes))
        return mpx.put(key, values[key]), before

    for round in range(run.rounds or 3):
        last = []
        for step in range(25):
            last = []
            for client in clients:
                body, expected = another()
                run.equal(client.submit(body).body, expected, f"reply {step} of round {round}")
                last.append((client, body, expected))
        cluster.kill9(*cluster.ids)
        cluster.start(*cluster.ids)
        for client, body, expected in last:
            run.equal(client.again(body).body, expected, f"the reply to a retry after all were killed, round {round}")
        for key in keys:
            found = clients[0].query(get(key)).body
            run.equal(found, mpx.some(values[key]) if key in values else bytes([0]), f"a value after round {round}")
    cluster.settle()
    cluster.stop(*cluster.ids)
    for id in cluster.ids:
        done = execute("dump", "--pool", cluster.pools(id)[1], "--verify")
        run.finished(done, f"dump of the state of replica {id}", 0)


@scenario
def quorum_lost(run):
    """Without a majority nothing is ordered, and what needs no order is answered; with it the same sequence is done
    once.
    """
    cluster = run.cluster().start_all()
    client = cluster.client().open()
    first = client.submit(add(b"sum", 1))
    cluster.settle()
    survivor = run.random.choice(cluster.ids)
    lost = [id for id in cluster.ids if id != survivor]
    cluster.kill9(*lost)
    link = cluster.link(survivor)
    body = add(b"sum", 1)
    for attempt in range(3):
        try:
            reply = link.call(SUBMIT, body, session=client.session, sequence=first.sequence + 1, timeout=3)
            run.reply(reply, "SUBMIT without a majority", status=NO_LEADER, session=client.session,
                      sequence=first.sequence + 1,
                      position=0)
            run.equal(len(reply.body), 4, "NO_LEADER carries a u32")
        except mpx.Silent:
            pass
        run.reply(link.call(PING, b"there"), "PING without a majority", status=OK, body=b"there")
        run.reply(link.call(QUERY, get(b"sum"), flags=LOCAL), "LOCAL without a majority", status=OK,
                  position=first.position,
                  body=some(number(1)))
        run.reply(link.call(QUERY, get(b"sum"), flags=LOCAL, position=first.position + 1), "LOCAL ahead", status=BUSY)
        run.reply(link.call(SUBMIT, b"nonsense"), "MALFORMED is found before NO_LEADER", status=MALFORMED)
    status = eventually(lambda: (lambda s: s["role"] != "leader" and s)(cluster.status(survivor)),
                        "the survivor does not lead")
    run.check(status["leader"] is None, f"it knows no leader: {status['leader']}")
    try:
        reply = link.call(QUERY, get(b"sum"), timeout=3)
        run.reply(reply, "QUERY without a majority", status=NO_LEADER)
    except mpx.Silent:
        pass
    # A replica that is told to stop leaves nobody without a word.
    waiting = mpx.header(SUBMIT, 0, client.session, first.sequence + 1, 0)
    link.send_frames([waiting, body])
    eventually(lambda: cluster.status(survivor)["outstanding"] > 0, "the request waits")
    cluster.stop(survivor)
    run.reply(mpx.decode(link.receive_frames(timeout=5)), "SUBMIT at the stop", status=NO_LEADER,
              session=client.session, sequence=first.sequence + 1)
    cluster.start(*cluster.ids)
    done = client.submit(body)
    run.equal(done.sequence, first.sequence + 1, "the same sequence as without a majority")
    run.reply(done, "the same request with a majority", status=OK, body=some(number(2)))
    for id in cluster.ids:
        with mpx.Link(cluster.endpoint(id)) as other:
            again = other.call(SUBMIT, body, session=client.session, sequence=first.sequence + 1)
            run.equal(again.kept, done.kept, f"once more at replica {id}")
    cluster.settle()
    run.equal(client.query(get(b"sum")).body, some(number(2)), "it was done once")


@scenario
def catch_up(run):
    """A replica that was away for long fetches what it missed, and is killed while it does."""
    cluster = run.cluster().start_all()
    client = cluster.client().open()
    away = cluster.followers()[0]
    client.at = cluster.leader()
    for way in ("stopped", "killed"):
        cluster.stop(away) if way == "stopped" else cluster.kill9(away)
        for n in range(60):
            client.endpoints[away] = cluster.endpoint(cluster.leader())
            last = client.submit(mpx.put(b"k%d" % n, bytes([n]) * 20_000))
        for _ in range(2):
            cluster.launch(away)
            eventually(lambda: "info" in cluster.processes[away].log(), "it is on its way")
            cluster.kill9(away)
        cluster.start(away)
        link = cluster.link(away)
        for n in range(60):

            def local():
                reply = link.call(QUERY, get(b"k%d" % n), flags=LOCAL, position=last.position)
                return None if reply.status == BUSY else reply

            reply = eventually(local, f"replica {away} reaches position {last.position}")
            run.reply(reply, "what was missed", status=OK, body=some(bytes([n]) * 20_000))
        cluster.settle()


@scenario
def log_wraps(run):
    """Writes of several times the log's size, with replicas killed meanwhile: old records go, what they said stays."""
    cluster = run.cluster().start_all()
    clients = [cluster.client(n).open() for n in range(2)]
    values, last = {}, {}
    written = 0
    random = run.random
    for turn in range((run.rounds or 4) * 60):
        client = clients[turn % 2]
        key = b"key %d" % random.randrange(40)
        value = random.randbytes(random.choice([10, 3000, 100_000, 400_000]))
        reply = client.submit(mpx.put(key, value))
        run.reply(reply, "a put", status=OK, body=some(values[key]) if key in values else mpx.NONE)
        values[key], last[client] = value, (mpx.put(key, value), reply)
        written += len(value)
        if turn % 20 == 19:
            victims = random.choice([[random.choice(cluster.ids)], list(cluster.ids)])
            cluster.kill9(*victims)
            cluster.start(*victims)
    print(f"{written / (1 << 20):.0f} MiB written through a log of 8 MiB")
    run.check(written > 20 << 20, "the log has wrapped")
    position = max(reply.position for _, reply in last.values())
    cluster.settle()
    for id in cluster.ids:
        link = cluster.link(id)
        for key, value in values.items():
            run.reply(link.call(QUERY, get(key), flags=LOCAL, position=position), f"{key} at replica {id}", status=OK,
                      body=some(value))
        for client, (body, reply) in last.items():
            again = link.call(SUBMIT, body, session=client.session, sequence=client.sequence)
            run.equal(again.kept, reply.kept, f"a retry at replica {id}")
        status = cluster.status(id)
        run.check(status["acceptor_pool"]["used"] <= status["acceptor_pool"]["size"], "the log keeps within its size")


if __name__ == "__main__":
    main()
