"""Images of pools that are full: of keys whose values are known, of sessions with kept replies, of votes."""

import os
import pickle
import random
import shutil
import struct
import time
from dataclasses import dataclass

import layout
import mpx
from mpx import BUSY, NO_LEADER, NONE, OK, OPEN, QUERY, SUBMIT, delete, get, put, some

REPLICAS = (0, 1, 2)
# How the replicas ended.
ENDS = ("killed", "stopped")
POOLS = ("acceptor.pool", "state.pool")
SESSIONS = 256
# The smallest pools that there are. Elections are quick, for each start may take one.
SECTIONS = {
    "storage": {"log_size": "8MiB", "state_size": "32MiB"},
    "protocol": {"heartbeat_ms": 20, "suspect_ms": 200},
    "client": {"sessions": SESSIONS},
}


def value(key, generation=0):
    """What a key holds: mostly little, seldom much."""
    source = random.Random(f"{key}/{generation}")
    return source.randbytes(source.randrange(source.choice((200, 200, 8000, 25000))))


def key(index):
    return layout.StateFile.KEY + b"%05d" % index


def pools(folder, replica):
    return [os.path.join(folder, str(replica), name) for name in POOLS]


@dataclass
class Request:
    """What a replica is asked, and all that it may answer."""

    what: str
    command: int
    body: bytes
    right: bytes
    flags: int = 0
    session: int = 0
    sequence: int = 0
    # None: any.
    position: int | None = None

    def is_right(self, reply):
        return (reply.status, reply.body) == (OK, self.right) and self.position in (None, reply.position)


def held(value):
    """What a query says of a value, or of none."""
    return NONE if value is None else some(value)


def reads(values, flags=0):
    return [Request(f"the value of {name.decode()}", QUERY, get(name), held(there), flags)
            for name, there in values.items()]


def ask(link, requests, process, deadline=30.0, most=256):
    """[(request, reply)] of those that were answered before the process ended, or the deadline. So many are under way
    at a time; those that are to come later are asked again."""
    waiting, replies, under_way = list(enumerate(requests)), [], 0
    waiting.reverse()
    end = time.monotonic() + deadline
    while waiting or under_way:
        while waiting and under_way < most:
            index, request = waiting.pop()
            header = mpx.header(request.command, request.flags, request.session, request.sequence)
            link.send_frames([header, request.body], envelope=(struct.pack("<I", index), b""))
            under_way += 1
        if link.socket.poll(50):
            envelope, _, *frames = link.receive_frames()
            index = struct.unpack("<I", envelope)[0]
            reply = mpx.decode(frames)
            under_way -= 1
            if reply.status in (BUSY, NO_LEADER):
                time.sleep(0.005)
                waiting.append((index, requests[index]))
            else:
                replies.append((requests[index], reply))
        elif not process.running() or time.monotonic() > end:
            break
    return replies


class Images:
    """In a folder, where they may stay; with what the replicas must answer."""

    def __init__(self, run, folder):
        self.folder = folder
        if not os.path.exists(os.path.join(folder, "answers")):
            make_images(run, folder)
        with open(os.path.join(folder, "answers"), "rb") as file:
            # Values by key; the requests whose replies are kept.
            self.values, self.kept = pickle.load(file)
        self.extents = {}
        for end in ENDS:
            for replica in REPLICAS:
                acceptor, state = pools(os.path.join(folder, end), replica)
                for name, file in zip(POOLS, (layout.AcceptorFile(acceptor), layout.StateFile(state))):
                    extents = [extent for extent in file.extents() if extent.start < extent.end]
                    self.extents[replica, end, name] = extents

    def size(self, pool):
        """Bytes up to the last one that was ever used, and those in use."""
        extents = self.extents[0, "stopped", pool]
        return extents[-1].end, sum(extent.end - extent.start for extent in extents if extent.used)


def make_images(run, folder):
    os.makedirs(folder, exist_ok=True)
    cluster = run.cluster(**SECTIONS)
    try:
        fill(cluster, folder)
    finally:
        cluster.remove()


def fill(cluster, folder):
    cluster.start_all()
    leader = cluster.leader()
    client = cluster.client(leader)

    def submit(commands, most):
        """(key, status) of commands by key."""
        requests = [Request(name, SUBMIT, command, b"") for name, command in commands]
        with mpx.Link(cluster.endpoint(leader), "dealer", SNDHWM=0, RCVHWM=0) as link:
            replies = ask(link, requests, cluster.processes[leader], 600, most)
        assert len(replies) == len(requests), "all are answered"
        return [(request.what, reply.status) for request, reply in replies]

    values, count, is_full = {}, 0, False
    while not is_full:
        found = submit([(key(index), put(key(index), value(key(index)))) for index in range(count, count + 100)], 16)
        count += 100
        values.update((name, value(name)) for name, status in found if status == OK)
        is_full = any(status != OK for _, status in found)
    # Free blocks, and room for what is written after a flip.
    gone = list(values)[::30]
    submit([(name, delete(name)) for name in gone], 16)
    for name in gone:
        del values[name]
    names = sorted(values, key=lambda name: len(values[name]))
    kept = []
    for index in range(SESSIONS - 16):
        session = client.request(OPEN).session
        # What is replaced is the reply, which so is long or short.
        name = names[index * len(names) // SESSIONS]
        reply = client.request(SUBMIT, put(name, values[name]), session=session, sequence=1)
        assert reply.status == OK, f"room for a kept reply: {reply}"
        what = f"the kept reply of session {session}"
        kept.append(Request(what, SUBMIT, get(name), reply.body, 0, session, 1, reply.position))
    # Sessions that were used since; asked elsewhere, so that the log has it.
    for index in range(0, len(kept), 2):
        client.at = (client.at + 1) % len(client.endpoints)
        client.request(SUBMIT, kept[index].body, session=kept[index].session, sequence=1)
    # Many small votes behind the large ones.
    small = names[:len(names) // 3]
    submit([(name, put(name, values[name])) for name in small + small], 4)
    cluster.settle()
    cluster.kill9(*cluster.ids)
    images = cluster.sections["storage"]["directory"]
    shutil.copytree(images, os.path.join(folder, "killed"))
    cluster.start_all()
    cluster.settle()
    cluster.stop(*cluster.ids)
    shutil.copytree(images, os.path.join(folder, "stopped"))
    with open(os.path.join(folder, "answers"), "wb") as file:
        pickle.dump((values, kept), file)
