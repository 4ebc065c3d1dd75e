"""Every operation of the key-value service, to the byte, through each replica."""

import os
import struct

import mpx
from harness import main, scenario
from mpx import LOCAL, NONE, OK, QUERY, SUBMIT, add, append, cas, delete, get, number, put, scan, some


@scenario
def operations(run):
    cluster = run.cluster().start_all()
    for id in cluster.ids:
        link = cluster.link(id)
        reader = cluster.link((id + 1) % len(cluster.ids))
        prefix = b"%d/" % id

        def submit(what, body, expected):
            return run.reply(link.call(SUBMIT, body), f"{what} through replica {id}", status=OK, body=expected)

        def query(what, body, expected):
            run.reply(link.call(QUERY, body), f"{what} through replica {id}", status=OK, body=expected)
            run.reply(reader.call(QUERY, body), f"{what} through another than replica {id}", status=OK, body=expected)

        values(run, submit, query, prefix)
        swaps(submit, query, prefix)
        appends(submit, query, prefix)
        sums(run, submit, query, prefix)
        keys(submit, query, prefix)
    scans(run, cluster)
    cluster.settle()


def values(run, submit, query, prefix):
    key = prefix + b"value"
    query("get of nothing", get(key), NONE)
    submit("ordered get of nothing", get(key), NONE)
    submit("delete of nothing", delete(key), NONE)
    submit("put where nothing was", put(key, b"first"), NONE)
    query("get", get(key), some(b"first"))
    submit("put over a value", put(key, b"second, and longer"), some(b"first"))
    submit("put of an empty value", put(key, b""), some(b"second, and longer"))
    query("get of an empty value", get(key), some(b""))
    submit("ordered get", get(key), some(b""))
    submit("put over an empty value", put(key, b"\x00\x01\x02"), some(b""))
    submit("delete", delete(key), some(b"\x00\x01\x02"))
    query("get of what was deleted", get(key), NONE)
    for size in (1, 7, 8, 15, 16, 63, 64, 255, 4095, 4096, 65536, 500_000):
        value = os.urandom(size)
        submit(f"put of {size} bytes", put(key, value), NONE)
        query(f"get of {size} bytes", get(key), some(value))
        submit(f"delete of {size} bytes", delete(key), some(value))


def swaps(submit, query, prefix):
    key = prefix + b"swap"
    submit("cas that expects a value where nothing is", cas(key, b"x", b"new"), b"\x00\x00")
    submit("cas that expects an empty value where nothing is", cas(key, b"", b"new"), b"\x00\x00")
    query("get after it", get(key), NONE)
    submit("cas that expects nothing", cas(key, None, b"new"), some(b"new"))
    submit("cas that expects nothing where a value is", cas(key, None, b"newer"), b"\x00\x01new")
    submit("cas that expects another value", cas(key, b"ne", b"newer"), b"\x00\x01new")
    submit("cas that expects a longer value", cas(key, b"new ", b"newer"), b"\x00\x01new")
    query("get after them", get(key), some(b"new"))
    submit("cas", cas(key, b"new", b"newer, and longer"), some(b"newer, and longer"))
    submit("cas to an empty value", cas(key, b"newer, and longer", b""), some(b""))
    submit("cas that finds an empty value", cas(key, b"x", b"y"), b"\x00\x01")
    submit("cas from an empty value", cas(key, b"", b"z"), some(b"z"))
    submit("cas to the same value", cas(key, b"z", b"z"), some(b"z"))
    query("get after all", get(key), some(b"z"))


def appends(submit, query, prefix):
    key = prefix + b"append"
    submit("append of nothing to nothing", append(key, b""), some(struct.pack("<Q", 0)))
    query("get of it", get(key), some(b""))
    submit("append", append(key, b"abc"), some(struct.pack("<Q", 3)))
    submit("append of nothing", append(key, b""), some(struct.pack("<Q", 3)))
    submit("append again", append(key, b"\x00" * 100), some(struct.pack("<Q", 103)))
    query("get of what was appended", get(key), some(b"abc" + b"\x00" * 100))
    fresh = prefix + b"append to nothing"
    submit("append to nothing", append(fresh, b"x"), some(struct.pack("<Q", 1)))


def sums(run, submit, query, prefix):
    key, text = prefix + b"sum", prefix + b"text"
    least, most = -(1 << 63), (1 << 63) - 1
    submit("add to nothing", add(key, -5), some(number(-5)))
    query("get of a sum", get(key), some(number(-5)))
    submit("add", add(key, 7), some(number(2)))
    submit("add of 0", add(key, 0), some(number(2)))
    submit("add up to the largest", add(key, most - 2), some(number(most)))
    refused = run.reply(submit("add beyond the largest", add(key, 1), REASON), "refusal")
    run.check(refused.body[1:].decode(), "a reason")
    submit("put of 8 bytes", put(key, number(least)), some(number(most)))
    submit("add below the least", add(key, -1), REASON)
    query("get after refusals", get(key), some(number(least)))
    submit("add from the least to -1", add(key, most), some(number(-1)))
    submit("add across zero", add(key, 1), some(number(0)))
    for value in (b"", b"1", b"1234567", b"123456789"):
        submit("put of what is no number", put(text, value), ANY)
        submit(f"add to {value!r}", add(text, 1), REASON)
        query("get after a refusal", get(text), some(value))


class _Any:
    def __eq__(self, other):
        return True

    def __repr__(self):
        return "anything"


class _Reason:
    """2 and a UTF-8 reason."""

    def __eq__(self, other):
        return isinstance(other, bytes) and other[:1] == b"\x02" and len(other) > 1 and bool(other[1:].decode())

    def __repr__(self):
        return "2 and a reason"


ANY, REASON = _Any(), _Reason()


def keys(submit, query, prefix):
    """Keys are bytes: of any value, of 1 to 1,024."""
    for key in (b"\x00", b"\xff" * 3, b"k" * 1024, bytes(range(256)) * 4, "schlüssel".encode(), b"\x00\x00"):
        submit(f"delete of the key {key[:9]!r}", delete(key), ANY)
        submit(f"put of the key {key[:9]!r}", put(key, prefix), NONE)
        query(f"get of the key {key[:9]!r}", get(key), some(prefix))


def scans(run, cluster):
    writer = cluster.client().open()
    wanted = {b"scan/%04d" % n: os.urandom(n % 50) for n in range(300)}
    for key, value in wanted.items():
        writer.submit(put(key, value))
    writer.submit(put(b"scam", b"not wanted"))
    writer.submit(put(b"scan", b"shorter than the prefix"))
    for id in cluster.ids:
        link = cluster.link(id)

        def look(prefix, limit=0):
            return mpx.entries(run.reply(link.call(QUERY, scan(prefix, limit)), f"scan of {prefix!r}", status=OK).body)

        run.equal(look(b"scan/"), (0, wanted), "a scan by prefix")
        run.equal(look(b"scan/", 300), (0, wanted), "a scan with a limit that is just enough")
        run.equal(look(b"scan/", 301), (0, wanted), "a scan with a limit that is more than enough")
        run.equal(look(b"nothing/"), (0, {}), "a scan that finds nothing")
        run.equal(look(b"scan/0123"), (0, {b"scan/0123": wanted[b"scan/0123"]}), "a scan by a whole key")
        more, some_found = look(b"scan/", 299)
        run.check(more == 1 and len(some_found) == 299 and some_found.items() <= wanted.items(),
                  "a scan that leaves one out says so")
        more, everything = look(b"")
        run.check(wanted.items() <= everything.items() and b"scam" in everything,
                  "a scan with an empty prefix finds all")
    big = {b"big/%02d" % n: os.urandom(200_000) for n in range(8)}
    for key, value in big.items():
        writer.submit(put(key, value))
    reply = cluster.link(1).call(QUERY, scan(b"big/"))
    run.check(len(reply.body) <= 1 << 20, f"a scan has at most max_request bytes, not {len(reply.body)}")
    more, found = mpx.entries(reply.body)
    run.equal((more, len(found)), (1, 5), "a scan of eight values of 200,000 bytes: more, and how many fit")
    run.check(found.items() <= big.items(), "what fits is whole")
    # The largest entry that there can be, put together of two commands.
    key, value = b"largest" + bytes(1017), os.urandom(1 << 20)
    writer.submit(put(key, value[:1000]))
    writer.submit(append(key, value[1000:500_000]))
    writer.submit(append(key, value[500_000:]))
    for flags in (0, LOCAL):
        reply = run.reply(cluster.link(0).call(QUERY, scan(b"largest"), flags=flags), "a scan of one that is too large",
                          status=OK)
        run.equal(len(reply.body), (1 << 20) + 1038, "bytes of its reply")
        run.equal(mpx.entries(reply.body), (0, {key: value}), "the largest entry")


if __name__ == "__main__":
    main()
