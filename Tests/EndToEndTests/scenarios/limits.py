"""What is bounded: requests outstanding, sessions, the state; and the literal REP socket, one request at a time."""

import os
import signal
import struct
import threading
import time

import mpx
from harness import eventually, main, scenario
from mpx import (BUSY, CLOSE, EXPIRED, FULL, LOCAL, MALFORMED, NO_LEADER, OK, OPEN, PING, QUERY, STATUS, SUBMIT, add,
                 append,
                 delete, get, header, number, put, scan, some)


@scenario
def busy(run):
    """Beyond max_outstanding: BUSY. Without a quorum, what was admitted stays outstanding."""
    cluster = run.cluster(protocol={"suspect_ms": 3000}, client={"max_outstanding": 16}).start_all()
    leader = cluster.leader()
    others = cluster.followers()
    link = cluster.link(leader, "dealer")
    link.call(PING)
    before = cluster.status(leader)["rejected"]["busy"]
    cluster.kill9(*others)
    for n in range(1, 65):
        link.send_frames([header(SUBMIT, sequence=n), add(b"busy", 1)])
    refused = set()
    while len(refused) < 48:
        reply = mpx.decode(link.receive_frames()[1:])
        run.reply(reply, "beyond max_outstanding", status=BUSY, replica=leader, session=0, position=0)
        run.equal(len(reply.body), 4, "BUSY carries a u32")
        refused.add(reply.sequence)
    run.equal(refused, set(range(17, 65)), "the requests admitted are the first")
    status = cluster.status(leader)
    run.equal(status["outstanding"], 16, "outstanding")
    run.equal(status["rejected"]["busy"], before + 48, "BUSY is counted")
    run.reply(link.call(PING, b"x", sequence=100), "PING is answered all the same", status=OK, sequence=100, body=b"x")
    # MALFORMED is found before BUSY is considered.
    run.reply(link.call(SUBMIT, b"nonsense", sequence=101), "a malformed request at a busy replica", status=MALFORMED,
              sequence=101)
    cluster.start(*others)
    answered = {}
    while len(answered) < 16:
        reply = mpx.decode(link.receive_frames(30)[1:])
        run.check(reply.status in (OK, NO_LEADER), f"a request that was admitted: {reply}")
        answered[reply.sequence] = reply
    run.equal(set(answered), set(range(1, 17)), "each request that was admitted gets one answer")
    done = sum(reply.status == OK for reply in answered.values())
    cluster.settle()
    total = struct.unpack("<q", cluster.client(leader).query(get(b"busy")).body[1:] or bytes(8))[0]
    run.check(done <= total <= 16, f"{done} additions were acknowledged, 16 admitted, {total} counted")
    eventually(lambda: cluster.status(leader)["outstanding"] == 0, "nothing is outstanding any more")


@scenario
def turns(run):
    """While queries that take long wait, ordered or not, other clients are answered between them."""
    cluster = run.cluster().start_all()
    leader = cluster.leader()
    link, other = cluster.link(leader, "dealer"), cluster.link(leader)
    for first in range(0, 40_000, 1_000):
        for n in range(first, first + 1_000):
            link.send_frames([header(SUBMIT, sequence=n), put(b"key %d" % n, b"")])
        for _ in range(1_000):
            run.equal(mpx.decode(link.receive_frames(30)[1:]).status, OK, "a put")
    nothing = [1, 0, 0, 0, 0, 0]
    for flags, what in ((LOCAL, "local"), (0, "ordered")):
        for n in range(192):
            link.send_frames([header(QUERY, flags=flags, sequence=n), scan(b"none begins with this")])
        begin, waits, answers = time.monotonic(), [], 0
        while answers < 192:
            before = time.monotonic()
            run.reply(other.call(PING, b"x", timeout=60), "PING between scans", status=OK, body=b"x")
            waits.append(time.monotonic() - before)
            while answers < 192 and link.socket.poll(0):
                reply = run.reply(mpx.decode(link.receive_frames()[1:]), "a scan", status=OK, body=bytes(nothing))
                answers += 1
        took = time.monotonic() - begin
        waits.sort()
        print(f"192 {what} scans took {took:.2f} s, {len(waits)} PINGs meanwhile: median {waits[len(waits) // 2] * 1e3:.1f} ms, "
              f"longest {waits[-1] * 1e3:.1f} ms")
        run.check(waits[-1] < took / 4, f"a PING waits for some scans, not for all: {waits[-1]:.3f} of {took:.3f} s")


@scenario
def guesses(run):
    """The id of a session is known to whoever opened it: none follows from another, and nobody ends what is not its
    own.
    """
    cluster = run.cluster().start_all()
    link = [cluster.link(id) for id in cluster.ids]
    sessions = [link[n % 3].call(OPEN).session for n in range(20)]
    steps = {(later - earlier) >> 20 for earlier, later in zip(sessions, sessions[1:])}
    run.equal(len(steps), 19, "no two ids are as far apart as two others")
    for session in sessions:
        # The neighbours in the table, and the ids by the count of OPENs.
        for guess in (session + 1, session - 1, session ^ 1 << 20, 1 << 20 | session & 0xFFFFF, 0xFFFFF & session or 1):
            run.reply(link[0].call(CLOSE, session=guess), "CLOSE of a guess", status=EXPIRED)
    for n, session in enumerate(sessions):
        run.reply(link[n % 3].call(SUBMIT, add(b"n", 1), session=session, sequence=1), "all are open", status=OK)
    cluster.settle()
    digests = {status["digest"]["value"] for status in cluster.statuses().values()}
    run.equal(len(digests), 1, "the same ids on every replica")
    cluster.kill9(*cluster.ids)
    cluster.start(*cluster.ids)
    for n, session in enumerate(sessions):
        run.reply(cluster.link(n % 3).call(CLOSE, session=session), "CLOSE of one's own", status=OK)


@scenario
def eviction(run):
    """With 16 places, OPEN evicts the session used longest ago, the same on every replica."""
    cluster = run.cluster(client={"sessions": 16}).start_all()
    link = [cluster.link(id) for id in cluster.ids]
    sessions = [link[n % 3].call(OPEN).session for n in range(16)]
    run.equal(len(set(sessions)), 16, "sixteen sessions")
    cluster.settle()
    run.equal({status["sessions"] for status in cluster.statuses().values()}, {16}, "sessions in STATUS")

    # Used: all but 3, in another order than they were opened in. 0 is the one used longest ago among the rest.
    for n in [0, 15, 1, 14, 2, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4]:
        run.reply(link[n % 3].call(SUBMIT, add(b"n", 1), session=sessions[n], sequence=1), f"use of session {n}",
                  status=OK)
    fresh = [link[0].call(OPEN).session]
    gone(run, cluster, sessions[3], "the session that was never used")
    fresh.append(link[1].call(OPEN).session)
    gone(run, cluster, sessions[0], "the session used longest ago")
    kept = run.reply(link[2].call(SUBMIT, add(b"n", 1), session=sessions[15], sequence=2), "a use", status=OK,
                     body=some(number(16)))
    fresh.append(link[2].call(OPEN).session)
    gone(run, cluster, sessions[1], "the one used longest ago by then")
    for id in cluster.ids:
        run.equal(link[id].call(SUBMIT, add(b"n", 1), session=sessions[15], sequence=2).kept, kept.kept,
                  "what was used stays")
    run.check(not set(fresh) & set(sessions) and len(set(fresh)) == 3, "ids are never used again")
    run.reply(link[0].call(CLOSE, session=sessions[15]), "CLOSE", status=OK)
    cluster.settle()
    run.equal({status["sessions"] for status in cluster.statuses().values()}, {15}, "CLOSE makes room")
    link[0].call(OPEN)
    for n in (14, 2, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4):
        run.reply(link[1].call(SUBMIT, add(b"n", 1), session=sessions[n], sequence=1),
                  "nothing was evicted while there was room",
                  status=OK)
    for n in range(40):
        link[n % 3].call(OPEN)
    for session in sessions + fresh:
        gone(run, cluster, session, "a session of long ago")
    cluster.settle()
    run.equal({status["sessions"] for status in cluster.statuses().values()}, {16}, "sessions in the end")


def gone(run, cluster, session, what):
    for id in cluster.ids:
        with mpx.Link(cluster.endpoint(id)) as link:
            run.reply(link.call(SUBMIT, get(b"n"), session=session, sequence=1 << 40), what, status=EXPIRED,
                      session=session, body=b"")


@scenario
def full(run):
    """A small state: filled, refused, emptied, used again."""
    cluster = run.cluster(client={"sessions": 64}).start_all()
    client = cluster.client(1).open()
    value = os.urandom(250_000)
    refusal, large = fill(client, value, b"large")
    run.check(large > 20, f"more than 20 values of 250,000 bytes fit into 32 MiB, not {large}")
    refused(run, cluster, client, refusal, put(b"large%d" % large, value))
    _, small = fill(client, value[:2000], b"small")
    position = client.submit(get(b"large0")).position
    without = cluster.link(0).call(SUBMIT, put(b"other", value))
    run.reply(without, "a refusal without a session", status=FULL, session=0, position=position + 1)
    run.reply(cluster.link(2).call(SUBMIT, put(b"other", value)), "each refusal takes a position", status=FULL,
              position=position + 2)

    for id in cluster.ids:
        link = cluster.link(id)
        run.reply(link.call(QUERY, get(b"large1")), f"a query of a full store through replica {id}", status=OK,
                  body=some(value))
        opened = run.reply(link.call(OPEN), "OPEN is never FULL", status=OK)
        run.reply(link.call(SUBMIT, get(b"large1"), session=opened.session, sequence=1), "reads go on", status=OK,
                  body=some(value))
        other = os.urandom(len(value))
        run.reply(link.call(SUBMIT, put(b"large1", other), session=opened.session, sequence=2),
                  "overwrites of the same size go on",
                  status=OK, body=some(value))
        run.reply(link.call(SUBMIT, put(b"large1", value), session=opened.session, sequence=3), "and again", status=OK,
                  body=some(other))
        run.reply(link.call(SUBMIT, delete(b"large%d" % (id + 2)), session=opened.session, sequence=4), "deletes go on",
                  status=OK,
                  body=some(value))
        run.reply(link.call(CLOSE, session=opened.session), "CLOSE goes on", status=OK)
    for id in cluster.ids:
        run.equal(client.submit(put(b"again%d" % id, value[:-1000])).kept[0], OK, "what deletes freed is used again")
    for n in range(70):
        run.reply(cluster.link(n % 3).call(OPEN), "more OPENs than places are never FULL", status=OK)
    empty(run, cluster, value, large, small)


def fill(client, value, prefix):
    """Puts until it is refused. Returns the refusal and how many went in."""
    count = 0
    while True:
        reply = client.submit(put(prefix + b"%d" % count, value))
        if reply.status == FULL:
            return reply, count
        count += 1
        assert count < 100_000, "the store never fills"


def refused(run, cluster, client, refusal, body):
    """The refusal is the kept reply, from every replica, even once there would be room; the sequence is used up."""
    run.check(refusal.body.decode() and refusal.position > 0, f"a refusal has a reason and a position: {refusal}")
    for id in cluster.ids:
        with mpx.Link(cluster.endpoint(id)) as link:
            again = link.call(SUBMIT, body, session=client.session, sequence=client.sequence)
            run.equal(again.kept, refusal.kept, f"the kept refusal from replica {id}")
    run.reply(client.submit(get(b"large0")), "the next sequence", status=OK, position=refusal.position + 1)


def empty(run, cluster, value, large, small):
    """Everything is deleted and filled once more: as much goes in as before."""
    client = cluster.client(2).open()
    for n in range(large):
        client.submit(delete(b"large%d" % n))
    for n in range(small):
        client.submit(delete(b"small%d" % n))
    for id in cluster.ids:
        client.submit(delete(b"again%d" % id))
    _, again = fill(client, value, b"large")
    run.check(again >= large - 1, f"{large} values went in at first, {again} after all was deleted")
    grown = client.submit(append(b"large0", value))
    run.reply(grown, "an append that does not fit", status=FULL)
    run.equal(client.query(get(b"large0")).body, some(value), "a refused append changed nothing")
    cluster.settle()


@scenario
def big_replies(run):
    """Replies of many MiB at once to a client that reads: none is lost, though it can read nothing while they are
    written.
    """
    cluster = run.cluster(replicas=1).start_all()
    link = cluster.link(0, "dealer", RCVHWM=0, SNDHWM=0)
    for size, count in ((1_000_000, 16), (65_536, 400)):
        value = b"v" * size
        run.reply(link.call(SUBMIT, put(b"big", value)), "PUT", status=OK)
        for flags in (0, LOCAL):
            for n in range(count):
                link.send_frames([header(QUERY, flags=flags, sequence=n), get(b"big")])
            found = set()
            for _ in range(count):
                reply = mpx.decode(link.receive_frames(30)[1:])
                run.reply(reply, f"one of {count} GETs of {size} B at once", status=OK, body=some(value))
                found.add(reply.sequence)
            run.equal(found, set(range(count)), "GETs answered")


@scenario
def late_replies(run, count=6000):
    """A leader without followers gives up on thousands of requests; then all are decided at once, with as many newer
    ones.
    """
    cluster = run.cluster(
        # One connection has half of the room at most.
        client={"max_outstanding": 2 * count}, protocol={"batch_bytes": "1MiB", "suspect_ms": 250}).start_all()
    leader = cluster.leader()
    followers = [id for id in cluster.ids if id != leader]
    link = cluster.link(leader, "dealer", RCVHWM=0, SNDHWM=0)
    for id in followers:
        cluster.processes[id].signal(signal.SIGSTOP)

    def ask(start):
        for n in range(start, start + count):
            link.send_frames([header(QUERY, sequence=n), get(b"late")])

    def answers(start, allowed):
        found = set()
        while len(found) < count:
            reply = mpx.decode(link.receive_frames(30)[1:])
            run.check(reply.status in allowed, f"status {reply.status} of a request in time or late")
            if reply.sequence >= start:
                found.add(reply.sequence)
        run.equal(found, set(range(start, start + count)), "requests answered")

    ask(0)
    answers(0, (NO_LEADER,))
    ask(count)
    for id in followers:
        cluster.processes[id].signal(signal.SIGCONT)
    answers(count, (OK, NO_LEADER, BUSY))
    for id in cluster.ids:
        run.check(cluster.processes[id].running(), f"replica {id} runs on")
    cluster.settle()


@scenario
def literal_rep(run):
    """`socket = "rep"`: REQ clients, one request at a time in the socket, each served in its turn."""
    cluster = run.cluster(client={"socket": "rep", "max_request": "64KiB"}).start_all()
    for id in cluster.ids:
        link = cluster.link(id)
        run.reply(link.call(PING, b"x", sequence=3), "PING", status=OK, replica=id, sequence=3, body=b"x")
        run.reply(link.call(STATUS), "STATUS", status=OK)
        session = run.reply(link.call(OPEN), "OPEN", status=OK).session
        first = run.reply(link.call(SUBMIT, add(b"rep", 1), session=session, sequence=1), "SUBMIT", status=OK,
                          body=some(number(id + 1)))
        run.equal(link.call(SUBMIT, add(b"rep", 1), session=session, sequence=1).kept, first.kept, "a retry")
        run.reply(link.call(QUERY, get(b"rep")), "QUERY", status=OK, body=some(number(id + 1)))
        run.reply(link.call(QUERY, get(b"rep"), flags=LOCAL, position=1 << 60), "LOCAL ahead", status=BUSY)
        run.reply(link.exchange([header(PING, sequence=3)]), "one frame", status=MALFORMED, replica=id, sequence=0)
        run.reply(link.exchange([header(PING), b"", b""]), "three frames", status=MALFORMED, replica=id)
        run.reply(link.exchange([b"short", b""]), "a short header", status=MALFORMED, replica=id)
        run.reply(link.call(99), "an unknown command", status=MALFORMED, replica=id)
        run.reply(link.call(PING, bytes(65537)), "a body above max_request", status=mpx.TOO_LARGE)
        run.reply(link.call(CLOSE, session=session), "CLOSE", status=OK)
        run.reply(link.call(SUBMIT, get(b"rep"), session=session, sequence=2), "SUBMIT after CLOSE", status=EXPIRED)
        correlated = cluster.link(id, "correlate")
        run.reply(correlated.call(SUBMIT, get(b"rep")), "from a correlating REQ", status=OK)
    each_in_its_turn(run, cluster)


def each_in_its_turn(run, cluster, clients=12, count=10):
    problems = []

    def work(n):
        try:
            client = mpx.Client(cluster.endpoints, n, patience=20).open()
            for _ in range(count):
                client.submit(add(b"turns", 1))
            client.close()
        except Exception as error:
            problems.append(repr(error))

    workers = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(clients)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    run.equal(problems, [], "clients of REP sockets")
    run.equal(cluster.client().query(get(b"turns")).body, some(number(clients * count)), "additions of all clients")


if __name__ == "__main__":
    main()
