"""Requests that are rejected before they are ordered: the whole table of MALFORMED, and TOO_LARGE."""

import os
import struct

import zmq

import mpx
from harness import eventually, main, scenario
from mpx import (CLOSE, EXPIRED, LOCAL, MALFORMED, NO_FORWARD, OK, OPEN, PING, QUERY, STATUS, SUBMIT, TOO_LARGE, append,
                 cas,
                 delete, get, header, put, scan, some)

COMMANDS = {OPEN: "OPEN", SUBMIT: "SUBMIT", QUERY: "QUERY", CLOSE: "CLOSE", STATUS: "STATUS", PING: "PING"}


@scenario
def malformed(run):
    cluster = run.cluster().start_all()
    for id in cluster.ids:
        before = cluster.status(id)
        link = cluster.link(id, "dealer")
        session = link.call(OPEN).session
        position = cluster.settle()[0]
        count = frames_and_headers(run, link, id)
        count += fields(run, link, id, session)
        count += bodies(run, link, id, session)
        after = cluster.status(id)
        run.equal(after["rejected"]["malformed"], before["rejected"]["malformed"] + count, "each one is counted")
        run.equal(after["position"], position, "none was ordered")
        run.reply(link.call(SUBMIT, put(b"k", b"v"), session=session, sequence=1),
                  "the sequence that they used is still free",
                  status=OK, session=session, sequence=1, position=position + 1)


def frames_and_headers(run, link, id):
    """Where frame count, header size or magic is wrong, there is nothing to echo."""
    good = header(PING, sequence=7)
    cases = [
        ("one frame", [good]),
        ("one empty frame", [b""]),
        ("three frames", [good, b"body", b"more"]),
        ("twenty frames", [good] + [b"body"] * 19),
        ("header and body behind a second delimiter", [b"", good, b"body"]),
        ("an empty header", [b"", b"body"]),
        ("a header of 31 bytes", [good[:31], b"body"]),
        ("a header of 33 bytes", [good + b"\0", b"body"]),
        ("a header of 64 bytes", [good + good, b"body"]),
        ("a header of 100,000 bytes", [good * 3125, b"body"]),
        ("another magic", [header(PING, sequence=7, magic=b"MPX2"), b"body"]),
        ("the magic of a peer", [header(PING, sequence=7, magic=b"MPP1"), b"body"]),
        ("a header of zeros", [bytes(32), b""]),
        ("a header of ones", [b"\xff" * 32, b""]),
    ]
    for what, frames in cases:
        reply = run.reply(link.exchange(frames), what, status=MALFORMED, flags=0, replica=id, session=0, sequence=0,
                          position=0)
        run.check(reply.body.decode(), f"{what}: a reason")
    return len(cases)


def fields(run, link, id, session):
    """Fields that break a rule. The reply echoes session, sequence and flags."""
    needs = {CLOSE: session}
    body = {SUBMIT: put(b"k", b"never"), QUERY: get(b"k")}
    cases = []

    def case(what, command, **wrong):
        values = dict(flags=0, session=needs.get(command, 0), sequence=1, position=0, reserved=0)
        content = wrong.pop("body", body.get(command, b""))
        values.update(wrong)
        cases.append((what, [header(command, **values), content], values))

    for code in (0, 7, 8, 63, 128, 255):
        case(f"the unknown command {code}", code)
    for command, name in COMMANDS.items():
        for bit in range(2, 8):
            case(f"{name} with flag bit {bit}", command, flags=1 << bit)
        case(f"{name} with all flags", command, flags=255)
        case(f"{name} with reserved 1", command, reserved=1)
        case(f"{name} with reserved 0x8000", command, reserved=0x8000)
        case(f"{name} with a position", command, position=1)
        if command != QUERY:
            case(f"{name} with LOCAL", command, flags=LOCAL)
            case(f"{name} with LOCAL and a position", command, flags=LOCAL, position=1)
        if command in (STATUS, PING):
            case(f"{name} with NO_FORWARD", command, flags=NO_FORWARD)
        if command in (OPEN, QUERY, STATUS, PING):
            case(f"{name} with a session", command, session=session)
        if command in (OPEN, CLOSE, STATUS):
            case(f"{name} with a body", command, body=b"x")
            case(f"{name} with a command as its body", command, body=get(b"k"))
    case("LOCAL query with a session", QUERY, flags=LOCAL, session=session, position=3)
    case("CLOSE without a session", CLOSE, session=0)
    case("SUBMIT in a session with sequence 0", SUBMIT, session=session, sequence=0)
    case("SUBMIT in an unknown session with sequence 0", SUBMIT, session=1 << 60, sequence=0)
    for what, frames, values in cases:
        reply = run.reply(link.exchange(frames), what, status=MALFORMED, flags=values["flags"], replica=id,
                          session=values["session"], sequence=values["sequence"], position=0)
        run.check(reply.body.decode(), f"{what}: a reason")
    return len(cases)


def bodies(run, link, id, session):
    """Bodies that the key-value service's validation rejects."""

    def raw(op, size, rest=b""):
        return op + struct.pack("<I", size) + rest

    expected = struct.pack("<BI", 1, 4)
    both = [
        ("an empty body", b""), ("an op alone", b"G"), ("a cut key length", b"G\x01\0\0"),
        ("an unknown op", raw(b"X", 1, b"k")),
        ("a lower case op", raw(b"g", 1, b"k")), ("the op 0", raw(b"\0", 1, b"k")), ("a key of no bytes", raw(b"G", 0)),
        ("a key of 1,025 bytes", raw(b"G", 1025, b"k" * 1025)), ("a key that overruns", raw(b"G", 2, b"k")),
        ("a key length of 2^32 - 1", raw(b"G", 0xFFFFFFFF, b"k")),
        ("a key length of 2^31", raw(b"G", 0x80000000, b"k")),
        ("a get with something behind the key", raw(b"G", 1, b"kk")),
    ]
    submits = [
        ("a scan in a SUBMIT", scan(b"k")), ("put without a key", raw(b"P", 0, b"value")),
        ("a put with a key of 1,025 bytes", put(b"k" * 1025, b"v")),
        ("a delete with something behind the key", delete(b"k") + b"x"),
        ("cas without its rest", raw(b"C", 1, b"k")), ("cas with a cut length", raw(b"C", 1, b"k\x01\0\0")),
        ("cas with an expected value that overruns", raw(b"C", 1, b"k" + expected + b"abc")),
        ("cas with an expected length of 2^32 - 1", raw(b"C", 1, b"k" + struct.pack("<BI", 1, 0xFFFFFFFF) + b"abc")),
        ("cas with present 2", raw(b"C", 1, b"k" + struct.pack("<BI", 2, 0) + b"abc")),
        ("cas absent with a length", raw(b"C", 1, b"k" + struct.pack("<BI", 0, 1) + b"abc")),
        ("append without a key", raw(b"A", 0, b"x")), ("add of 7 bytes", raw(b"I", 1, b"k" + bytes(7))),
        ("add of 9 bytes", raw(b"I", 1, b"k" + bytes(9))), ("add of nothing", raw(b"I", 1, b"k")),
    ]
    queries = [
        ("a put in a QUERY", put(b"k", b"v")), ("a delete in a QUERY", delete(b"k")),
        ("a cas in a QUERY", cas(b"k", None, b"v")),
        ("an append in a QUERY", append(b"k", b"v")), ("an add in a QUERY", mpx.add(b"k", 1)),
        ("a scan without a limit", raw(b"S", 1, b"k")), ("a scan with 3 bytes of limit", raw(b"S", 0, bytes(3))),
        ("a scan with 5 bytes of limit", raw(b"S", 0, bytes(5))),
        ("a scan with a prefix that overruns", raw(b"S", 9, bytes(4))),
        ("a scan with a prefix of 1,025 bytes", scan(b"k" * 1025)),
    ]
    count = 0
    for command, session_used, flags, cases in (
        (SUBMIT, session, 0, both + submits), (SUBMIT, 0, NO_FORWARD, both + submits), (QUERY, 0, 0, both + queries),
        (QUERY, 0, LOCAL, both + queries), (SUBMIT, 1 << 60, 0, both),
    ):
        for what, body in cases:
            reply = link.call(command, body, session=session_used, sequence=1, flags=flags)
            run.reply(reply, f"{COMMANDS[command]} with {what}", status=MALFORMED, flags=flags, replica=id,
                      session=session_used, sequence=1, position=0)
            run.check(reply.body.decode(), f"{what}: a reason")
            count += 1
    return count


@scenario
def sizes(run):
    """TOO_LARGE above max_request and not at it; far larger messages cost the connection."""
    limit = 64 * 1024
    cluster = run.cluster(client={"max_request": "64KiB"}).start_all()
    for id in cluster.ids:
        before = cluster.status(id)["rejected"]["too_large"]
        link = cluster.link(id)
        session = link.call(OPEN).session
        count = 0
        key = b"big-%d" % id
        rest = limit - len(put(key, b""))
        run.reply(link.call(PING, b"p" * limit), "a PING of max_request", status=OK, body=b"p" * limit)
        for what, command, body, used in (
            ("PING", PING, b"p" * (limit + 1), 0), ("SUBMIT", SUBMIT, put(key, b"v" * (rest + 1)), session),
            ("SUBMIT without a session", SUBMIT, put(key, b"v" * (rest + 1)), 0),
            ("QUERY", QUERY, get(b"k" * limit), 0),
            # It comes before a look into the body.
            ("SUBMIT of no command", SUBMIT, b"\xff" * (limit + 1), session),
            ("SUBMIT of 200 KiB", SUBMIT, b"\xff" * 204800, session),
        ):
            reply = link.call(command, body, session=used, sequence=1)
            run.reply(reply, f"{what} above max_request", status=TOO_LARGE, replica=id, session=used, sequence=1,
                      position=0,
                      body=struct.pack("<I", limit))
            count += 1
        run.equal(cluster.status(id)["rejected"]["too_large"], before + count, "each one is counted")
        value = os.urandom(rest)
        run.reply(link.call(SUBMIT, put(key, value), session=session, sequence=1), "a SUBMIT of max_request", status=OK,
                  sequence=1, body=mpx.NONE)
        largest_value(run, cluster, link, session, key, value, limit)
        far_larger(run, cluster, id)
    cluster.settle()


def largest_value(run, cluster, link, session, key, value, limit):
    """Values reach max_request, however they came about; what a request of max_request does is kept for retries."""
    missing = limit - len(value)
    run.reply(link.call(SUBMIT, append(key, b"a" * missing), session=session, sequence=2), "append up to max_request",
              status=OK, body=some(struct.pack("<Q", limit)))
    refused = run.reply(link.call(SUBMIT, append(key, b"a"), session=session, sequence=3), "append beyond max_request",
                        status=OK)
    run.check(refused.body[:1] == b"\x02" and refused.body[1:].decode(), "it is refused with a reason")
    whole = some(value + b"a" * missing)
    for id in cluster.ids:
        with mpx.Link(cluster.endpoint(id)) as other:
            run.reply(other.call(QUERY, get(key)), f"the largest value from replica {id}", status=OK, body=whole)
    taken = run.reply(link.call(SUBMIT, delete(key), session=session, sequence=4), "delete of the largest value",
                      status=OK, body=whole)
    for id in cluster.ids:
        with mpx.Link(cluster.endpoint(id)) as other:
            run.equal(other.call(SUBMIT, delete(key), session=session, sequence=4).kept, taken.kept,
                      f"the largest kept reply from replica {id}")


def far_larger(run, cluster, id):
    with mpx.Link(cluster.endpoint(id), "dealer") as link:
        link.call(PING)
        events = link.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        link.send_frames([header(PING), bytes(32 << 20)])
        run.check(events.poll(20_000), f"a message of 32 MiB costs the connection to replica {id}")
        link.socket.disable_monitor()
    with mpx.Link(cluster.endpoint(id)) as link:
        eventually(lambda: link.call(PING, b"there").body == b"there", f"replica {id} serves on")


if __name__ == "__main__":
    main()
