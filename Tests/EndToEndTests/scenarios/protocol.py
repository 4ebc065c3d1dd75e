"""MPX/1 as a client sees it: commands, sessions, statuses, flags, positions, sockets, through each replica."""

import json
import re
import struct

import mpx
from harness import eventually, main, scenario
from mpx import (BUSY, CLOSE, EXPIRED, LOCAL, NO_FORWARD, OK, OPEN, PING, QUERY, REDIRECT, STALE, STATUS, SUBMIT, add,
                 append,
                 get, number, put, some)


@scenario
def commands(run):
    cluster = run.cluster().start_all()
    for id in cluster.ids:
        each_command(run, cluster, id)
    position, _ = cluster.settle()
    run.check(position > 0, "the cluster has executed something")
    status_body(run, cluster)


def each_command(run, cluster, id):
    """Every command, through replica `id`, on a cluster that is otherwise quiet: positions follow one another."""
    through = f"through replica {id}"
    link = cluster.link(id)
    key = b"key-%d" % id
    opened = run.reply(link.call(OPEN, sequence=77), f"OPEN {through}", status=OK, flags=0, replica=id, sequence=77,
                       body=b"")
    run.check(opened.session != 0, f"OPEN {through} names a session")
    other = link.call(OPEN, sequence=77)
    run.check(other.session not in (0, opened.session), "a second OPEN names another session")
    run.equal(other.position, opened.position + 1, f"position of the second OPEN {through}")
    session, position = opened.session, other.position

    first = run.reply(
        link.call(SUBMIT, put(key, b"one"), session=session, sequence=5), f"SUBMIT {through}", status=OK, flags=0,
        replica=id, session=session, sequence=5, position=position + 1, body=mpx.NONE)
    second = run.reply(
        link.call(SUBMIT, append(key, b"-two"), session=session, sequence=9), f"SUBMIT over a gap {through}", status=OK,
        session=session, sequence=9, position=position + 2, body=b"\x01" + struct.pack("<Q", 7))
    run.check(first.kept != second.kept, "two commands have two replies")
    for other_id in cluster.ids:
        with mpx.Link(cluster.endpoint(other_id)) as retry:
            again = retry.call(SUBMIT, append(key, b"-two"), session=session, sequence=9)
            run.equal(again.kept, second.kept, f"a retry through replica {other_id} of what went {through}")
            run.equal(again.replica, other_id, "a retry names the replica that answers")
            different = retry.call(SUBMIT, put(key, b"never"), session=session, sequence=9)
            run.equal(different.kept, second.kept, f"a retry with another body through replica {other_id}")
            run.reply(
                retry.call(SUBMIT, put(key, b"never"), session=session, sequence=8), f"an older sequence {through}",
                status=STALE, session=session, sequence=8, position=0, body=b"")
            run.reply(
                retry.call(SUBMIT, put(key, b"never"), session=session + (1 << 40), sequence=1),
                f"an unknown session {through}",
                status=EXPIRED, session=session + (1 << 40), sequence=1, position=0, body=b"")
    run.reply(
        link.call(QUERY, get(key), sequence=1 << 63), f"QUERY {through}", status=OK, replica=id, session=0,
        sequence=1 << 63, body=some(b"one-two"))
    positions_and_session_zero(run, link, session, id)

    run.reply(link.call(PING, b"\x00anything\xff", sequence=3), f"PING {through}", status=OK, replica=id, sequence=3,
              body=b"\x00anything\xff")
    run.reply(link.call(PING), f"empty PING {through}", status=OK, replica=id, body=b"")
    run.reply(link.call(CLOSE, session=session, sequence=4), f"CLOSE {through}", status=OK, replica=id, session=session,
              sequence=4, body=b"")
    for other_id in cluster.ids:
        with mpx.Link(cluster.endpoint(other_id)) as retry:
            run.reply(retry.call(CLOSE, session=session, sequence=4), "CLOSE of a closed session", status=EXPIRED,
                      session=session, position=0, body=b"")
            run.reply(retry.call(SUBMIT, get(key), session=session, sequence=99), "SUBMIT in a closed session",
                      status=EXPIRED, session=session, sequence=99, position=0, body=b"")


def positions_and_session_zero(run, link, session, id):
    """Duplicates and queries take no position; everything ordered takes one, and session 0 is never deduplicated."""
    counter = b"counter-%d" % id
    base = link.call(SUBMIT, add(counter, 1), sequence=1)
    run.reply(base, "SUBMIT without a session", status=OK, session=0, sequence=1, body=some(number(1)))
    run.reply(link.call(SUBMIT, add(counter, 1), sequence=1), "the same without a session once more", status=OK,
              session=0, position=base.position + 1, body=some(number(2)))
    run.reply(link.call(SUBMIT, add(counter, 1), sequence=0), "sequence 0 without a session", status=OK,
              position=base.position + 2, body=some(number(3)))
    kept = link.call(SUBMIT, add(counter, 1), session=session, sequence=10)
    run.equal(kept.position, base.position + 3, "position of a SUBMIT")
    for _ in range(3):
        run.equal(link.call(SUBMIT, add(counter, 1), session=session, sequence=10).kept, kept.kept,
                  "a duplicate's reply")
        run.reply(link.call(QUERY, get(counter)), "a QUERY sees the last position", status=OK, position=kept.position,
                  body=some(number(4)))
    run.reply(link.call(SUBMIT, add(counter, 1), session=session, sequence=11),
              "duplicates and queries take no position",
              status=OK, position=kept.position + 1, body=some(number(5)))
    refused = run.reply(link.call(SUBMIT, add(counter, (1 << 63) - 1), session=session, sequence=12),
                        "an addition that overflows", status=OK, position=kept.position + 2)
    run.check(refused.body[:1] == b"\x02" and refused.body[1:].decode(), "it is refused with a reason")
    run.equal(link.call(SUBMIT, get(counter), session=session, sequence=12).kept, refused.kept, "a refusal is kept too")
    run.reply(link.call(SUBMIT, get(counter), session=session, sequence=(1 << 64) - 1), "the largest sequence",
              status=OK,
              sequence=(1 << 64) - 1, position=kept.position + 3, body=some(number(5)))
    run.reply(link.call(SUBMIT, get(counter), session=session, sequence=(1 << 64) - 2), "below the largest sequence",
              status=STALE)


@scenario
def retries_at_once(run):
    """The same request at all replicas at the same time, and again and again: it is done once, and all get the same
    bytes.
    """
    cluster = run.cluster().start_all()
    links = [cluster.link(id, "dealer") for id in cluster.ids for _ in range(2)]
    session = links[0].call(OPEN).session
    expected = 0
    for sequence in range(1, 31):
        frames = [mpx.header(SUBMIT, session=session, sequence=sequence), add(b"sum", sequence)]
        expected += sequence
        for link in links:
            for _ in range(3):
                link.send_frames(frames)
        replies = [mpx.decode(link.receive_frames()[1:]) for link in links for _ in range(3)]
        run.equal({reply.kept for reply in replies}, {(OK, session, sequence, sequence + 1, some(number(expected)))},
                  f"replies to eighteen sendings of sequence {sequence}")
    for link in links:
        run.check(not link.socket.poll(0), "no more replies than requests")
    run.equal(cluster.settle()[0], 31, "position in the end")


def status_body(run, cluster):
    leader = cluster.leader()
    for id in cluster.ids:
        status = cluster.status(id)
        for key in ("decided", "executed", "position", "sessions", "outstanding", "view"):
            run.check(isinstance(status.get(key), int), f"STATUS of replica {id} has the number {key}")
        run.check(status["executed"] <= status["decided"], "what is executed is decided")
        run.equal((status["id"], status["cluster"], status["leader"]), (id, cluster.name, leader),
                  f"STATUS of replica {id}")
        run.equal(status["role"], "leader" if id == leader else "follower", f"role of replica {id}")
        run.equal(status["view"] % len(cluster.ids), leader, "the view's leader")
        run.equal(set(status["rejected"]), {"malformed", "too_large", "busy"}, "rejected")
        for pool in ("acceptor_pool", "state_pool"):
            run.check(0 < status[pool]["used"] <= status[pool]["size"], f"{pool} of replica {id}: {status[pool]}")
        run.check(status["durability"] in ("pmem", "emulated", "msync"), f"durability {status['durability']}")
        run.check(status["uptime_s"] >= 0 and status["version"], "uptime and version")
        digest = eventually(lambda: cluster.status(id)["digest"]["value"], f"replica {id} has a digest")
        run.check(re.fullmatch("[0-9a-f]{16}", digest), f"a digest in hexadecimal: {digest}")
    echoed = cluster.link(0).call(STATUS, sequence=123)
    run.reply(echoed, "STATUS echoes the sequence", status=OK, sequence=123, session=0, flags=0)
    json.loads(echoed.body)


@scenario
def sockets(run):
    """REQ, REQ with RELAXED and CORRELATE, DEALER with many outstanding; and envelopes of every size."""
    check_sockets(run, run.cluster().start_all())


@scenario
def libzmq_sockets(run):
    """The same of `socket = "libzmq-router"`, the ROUTER of libzmq in place of the gateway's own."""
    check_sockets(run, run.cluster(client={"socket": "libzmq-router"}).start_all())


def check_sockets(run, cluster):
    malformed = {id: cluster.status(id)["rejected"]["malformed"] for id in cluster.ids}
    for id in cluster.ids:
        for kind in ("req", "correlate", "dealer"):
            link = cluster.link(id, kind)
            for n in range(3):
                body = b"%s %d" % (kind.encode(), n)
                run.reply(link.call(PING, body, sequence=n), f"PING from {kind}", status=OK, sequence=n, body=body)
                run.reply(link.call(SUBMIT, put(b"k", body), sequence=n), f"SUBMIT from {kind}", status=OK, sequence=n)
        relaxed(run, cluster, id)
        many_outstanding(run, cluster, id)
        envelopes(run, cluster, id, malformed[id])


def relaxed(run, cluster, id):
    """A lazy pirate gives up on a request, sends the next, and gets the reply of that one."""
    link = cluster.link(id, "correlate")
    for n in range(20):
        link.send_frames([mpx.header(SUBMIT, sequence=n), put(b"relaxed", b"%d" % n)])
    run.equal(mpx.decode(link.receive_frames()).sequence, 19, "the reply of the last of many requests")


def many_outstanding(run, cluster, id, count=300):
    link = cluster.link(id, "dealer")
    session = link.call(OPEN).session
    for n in range(1, count + 1):
        if n % 3 == 0:
            frames = [mpx.header(SUBMIT, sequence=n), add(b"many-%d" % id, 1)]
        elif n % 3 == 1:
            frames = [mpx.header(QUERY, sequence=n), get(b"many-%d" % id)]
        else:
            frames = [mpx.header(PING, sequence=n), b"%d" % n]
        link.send_frames(frames)
    found, sums = set(), []
    for _ in range(count):
        reply = mpx.decode(link.receive_frames(30)[1:])
        run.reply(reply, "one of many outstanding", status=OK, session=0)
        run.check(reply.sequence not in found, f"one reply to sequence {reply.sequence}")
        found.add(reply.sequence)
        if reply.sequence % 3 == 0:
            sums.append((reply.position, struct.unpack("<q", reply.body[1:])[0]))
        elif reply.sequence % 3 == 2:
            run.equal(reply.body, b"%d" % reply.sequence, "each PING gets its own body")
    run.equal(found, set(range(1, count + 1)), "sequences answered")
    run.equal([total for _, total in sorted(sums)], list(range(1, count // 3 + 1)), "sums in the order of positions")
    run.check(link.call(CLOSE, session=session).status == OK, "CLOSE from a DEALER")


def envelopes(run, cluster, id, malformed):
    """Identity and delimiter count: from a DEALER, six frames of its own before the delimiter make eight."""
    link = cluster.link(id, "dealer")
    for size in range(7):
        envelope = [bytes([n]) * (n * 40 + 1) for n in range(size)] + [b""]
        reply = link.exchange([mpx.header(PING, sequence=size), b"echo"], envelope)
        run.reply(reply, f"an envelope of {size + 2} frames", status=OK, sequence=size, body=b"echo")
    longest = [b"\x00" * 256, bytes(range(256)), b""]
    run.reply(link.exchange([mpx.header(PING), b"echo"], longest), "an envelope with frames of 256 bytes", status=OK,
              body=b"echo")
    reply = link.exchange([mpx.header(SUBMIT, sequence=5), add(b"enveloped-%d" % id, 1)],
                          [b"\xff\x00proxy", b"hop", b""])
    run.reply(reply, "an ordered command through two proxies", status=OK, sequence=5, body=some(number(1)))
    with mpx.Link(cluster.endpoint(id), "dealer", IDENTITY=b"\x01" * 255) as named:
        run.reply(named.call(PING, b"named"), "a routing id of 255 bytes", status=OK, body=b"named")

    dropped = [
        ("nine frames", [b"x"] * 7 + [b""]),
        ("sixty frames", [b"x"] * 58 + [b""]),
        ("a frame of 257 bytes", [b"y" * 257, b""]),
        ("a frame of 100,000 bytes", [b"y" * 100_000, b""]),
        ("no delimiter", [b"z"]),
        ("no delimiter in nine frames", [b"z"] * 8),
    ]
    for what, envelope in dropped:
        link.send_frames([mpx.header(PING, sequence=1), b"dropped"], envelope)
        run.reply(link.call(PING, b"next", sequence=2), f"the request after an envelope with {what}", status=OK,
                  sequence=2, body=b"next")
    run.equal(cluster.status(id)["rejected"]["malformed"], malformed + len(dropped),
              "envelopes dropped are counted as malformed")


@scenario
def flags(run):
    """NO_FORWARD and LOCAL at leader and followers."""
    cluster = run.cluster().start_all()
    leader = cluster.leader()
    session = cluster.link(leader).call(OPEN, flags=NO_FORWARD).session
    requests = [
        ("OPEN", OPEN, b"", 0), ("SUBMIT in a session", SUBMIT, put(b"a", b"1"), session),
        ("SUBMIT without a session", SUBMIT, put(b"a", b"1"), 0), ("QUERY", QUERY, get(b"a"), 0),
        ("CLOSE", CLOSE, b"", session),
    ]
    for id in cluster.ids:
        link = cluster.link(id)
        for what, command, body, session_used in requests if id != leader else []:
            run.reply(
                link.call(command, body, session=session_used, sequence=21, flags=NO_FORWARD),
                f"{what} with NO_FORWARD at a follower",
                status=REDIRECT, flags=NO_FORWARD, replica=id, session=session_used, sequence=21, position=0,
                body=cluster.endpoint(leader).encode())
        run.reply(link.call(QUERY, get(b"a"), flags=NO_FORWARD | LOCAL), "NO_FORWARD has no effect on a LOCAL query",
                  status=OK, flags=NO_FORWARD | LOCAL, replica=id)
    link = cluster.link(leader)
    redirected = cluster.settle()[0]
    for what, command, body, session_used in requests:
        run.reply(link.call(command, body, session=session_used, sequence=21, flags=NO_FORWARD),
                  f"{what} with NO_FORWARD at the leader",
                  status=OK, flags=NO_FORWARD, replica=leader)
    run.equal(cluster.settle()[0], redirected + 4, "four were ordered; nothing that was redirected was")
    local(run, cluster)


def local(run, cluster):
    writer = cluster.client().open()
    for id in cluster.ids:
        link = cluster.link(id)
        reply = link.call(QUERY, get(b"a"), flags=LOCAL, position=1 << 60, sequence=6)
        run.reply(reply, f"LOCAL far ahead of replica {id}", status=BUSY, flags=LOCAL, replica=id, session=0,
                  sequence=6, position=0)
        run.equal(len(reply.body), 4, "BUSY carries a u32")
        for n in range(10):
            written = writer.submit(put(b"local", b"%d of %d" % (n, id)))

            def caught_up():
                found = link.call(QUERY, get(b"local"), flags=LOCAL, position=written.position)
                return found if found.status != BUSY else None

            found = eventually(caught_up, f"replica {id} reaches position {written.position}")
            run.reply(found, "LOCAL after catching up", status=OK, flags=LOCAL, replica=id,
                      body=some(b"%d of %d" % (n, id)))
            run.check(found.position >= written.position,
                      "the position of a LOCAL reply is not before the one asked for")
        run.reply(link.call(QUERY, mpx.scan(b"loc"), flags=LOCAL), "a LOCAL scan", status=OK)


if __name__ == "__main__":
    main()
