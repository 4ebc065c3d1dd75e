"""Who has no key that counts gets nothing but the handshake's refusal, at either port, and has no effect on others."""

import os
import resource
import socket
import time

import zmq

import forgery
import mpx
from forgery import command, frame, greeting
from garbage import MIB, REFUSED, Memory, Others, metric
from harness import eventually, main, scenario
from keyring import Pair
from mpx import OK, PING, SUBMIT, add, number, some

GREETING_SIZE = 64
PEER_KEYS, CLIENT_KEYS = "mpaxos_peer_keys_refused_total", "mpaxos_client_keys_refused_total"
REQUESTS = "mpaxos_requests_total"


def recorded_hello(server, count=8):
    """What libzmq says at the begin of a CURVE handshake to who has the public key `server`: HELLO, from someone with a
    key of its own.
    """
    found = []
    for _ in range(count):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = mpx.context.socket(zmq.DEALER)
            client.linger = 0
            pair = Pair.new()
            mpx.Curve(pair.public, pair.secret, server).apply(client)
            client.connect("tcp://127.0.0.1:%d" % listener.getsockname()[1])
            with listener.accept()[0] as connection:
                connection.settimeout(10)
                connection.sendall(greeting(mechanism=b"CURVE")[:32] + b"\x01" + bytes(31))
                data = b""
                while len(data) < GREETING_SIZE + 202:
                    data += connection.recv(4096)
            client.close()
            found.append(data[GREETING_SIZE:GREETING_SIZE + 202])
    return found


class Keyless(forgery.Forger):
    """Streams in the clear, and such that begin as CURVE: with a HELLO that is none, that is another's, or that was
    recorded from who knows the replica's public key. Behind it comes what a client or a replica would say. All that is
    answered is looked at."""

    def __init__(self, random, cluster, ports):
        super().__init__(random, cluster, ports)
        self.hellos = {id: recorded_hello(cluster.keys.replicas[id].public) for id in cluster.ids}
        self.answers, self.strange = {}, []

    def stream(self, port, id):
        random = self.random
        data, count = port.stream(random)
        kind = random.randrange(8)
        if kind == 0:
            return data, b"", count
        rest = data[GREETING_SIZE:]
        start = greeting((3, random.choice([0, 1])), b"CURVE" if kind > 1 else b"PLAIN")
        hello = {
            1: command(b"HELLO", os.urandom(20)),
            2: command(b"HELLO", os.urandom(194)),
            3: self.flipped(random.choice(self.hellos[id])),
            4: random.choice(self.hellos[random.choice(self.cluster.ids)]),
        }.get(kind, random.choice(self.hellos[id]))
        if kind == 5:
            # In two steps, as it should be: what comes behind waits for WELCOME.
            return start + hello, command(b"INITIATE", os.urandom(248)) + rest, count + 2
        if kind > 5:
            # The cookie and the vouch are not ours to make.
            hello += command(b"INITIATE", os.urandom(random.choice([8, 96, 248, 300, 500])))
        if kind == 7:
            hello += frame(b"\x07MESSAGE" + os.urandom(random.randrange(600)), 0)
        return start + hello + rest, b"", count + 2

    def flipped(self, data):
        changed = bytearray(data)
        changed[self.random.randrange(2, len(changed))] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def one(self):
        port, id = self.random.choice(self.targets)
        data, rest, count = self.stream(port, id)
        self.frames += count
        self.connections += 1
        self.bytes += len(data)
        answer = b""
        try:
            with socket.create_connection(port.endpoint(self.cluster, id), timeout=10) as connection:
                connection.settimeout(1 if rest else self.random.choice([0.01, 0.01, 0.01, 0.3]))
                try:
                    connection.sendall(data)
                    while rest and len(answer) < GREETING_SIZE + 170:
                        answer += connection.recv(1 << 16)
                    connection.sendall(rest)
                    while part := connection.recv(1 << 16):
                        answer += part
                except OSError:
                    pass  # It is closed, or nothing more comes.
        except OSError:
            return
        kind = self.kind(answer)
        self.answers[kind] = self.answers.get(kind, 0) + 1
        if kind == "strange":
            self.strange.append(answer)

    @staticmethod
    def kind(answer):
        """What of a handshake it is."""
        if len(answer) <= GREETING_SIZE:
            own = greeting(mechanism=b"CURVE")
            # The 9 bytes behind the first are a length in an old protocol, and say nothing.
            alike = answer[:1] == own[:1][:len(answer)] and answer[9:10] in (
                b"", b"\x7f") and answer[12:32] == own[12:32][:max(0, len(answer) - 12)]
            return "greeting" if alike else "strange"
        rest = answer[GREETING_SIZE:]
        if rest[:10] == b"\x04\xa8\x07WELCOME" and len(rest) <= 170:
            return "welcome"
        if rest[:2] == b"\x04\x0a" or rest[2:8] == b"\x05ERROR":
            return "error"
        return "strange"


@scenario
def fuzz(run):
    """Forged frames at both ports. `--rounds N`: N thousand frames."""
    thousands = run.rounds or 40
    budget, slack = 16 * MIB, 64 * MIB
    cluster = run.cluster(
        keys=True, http=True, client={"max_request": "64KiB"},
        limits={"client_input": "16MiB", "peer_input": "16MiB"}).start_all()
    pids = {id: cluster.processes[id].pid for id in cluster.ids}
    others = Others(run, cluster)
    others.go_on()
    memory = Memory(run, cluster, bound=2 * budget + slack)
    forger = Keyless(run.random, cluster, os.environ.get("MPAXOS_FUZZ_PORTS", "client,peer").split(","))
    begin = time.monotonic()
    while forger.frames < thousands * 1000:
        forger.send(min(thousands * 1000, forger.frames + 100_000))
        memory.check(f"{forger.frames} frames")
    seconds = time.monotonic() - begin
    others.finish()
    cluster.check_running()
    run.equal({id: cluster.processes[id].pid for id in cluster.ids}, pids, "the processes")
    run.equal(forger.strange[:3], [], "answers that are no part of a handshake")
    run.check(set(forger.answers) <= {"greeting", "welcome", "error"} and forger.answers["welcome"] > 0,
              f"answers: {forger.answers}")
    for id in cluster.ids:
        run.equal(metric(cluster, id, REFUSED), 0, f"frames from strangers that the links of replica {id} got to see")
        run.equal(cluster.status(id)["rejected"]["malformed"], 0, f"requests that replica {id} found malformed")
        log = cluster.processes[id].log()
        run.check("forged" not in log and "MPX1" not in log, f"no byte of theirs is in the log of replica {id}")
    print(
        f"{forger.frames} frames, {forger.bytes / MIB:.0f} MiB over {forger.connections} connections in {seconds:.1f} s: "
        f"{forger.answers}", flush=True)
    cluster.settle()


@scenario
def crowd(run):
    """More connections without a key than a replica has descriptors: clients that are in are not cut off, and others
    come in.
    """
    limit = 512
    cluster = run.cluster(keys=True, http=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    cluster.start_all()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    clients = {id: cluster.client(id) for id in cluster.ids}
    for client in clients.values():
        client.open()
    standing = cluster.link(0, kind="dealer")
    news = standing.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    standing.exchange([mpx.header(PING), b""])
    kept = []
    port = cluster.client_port(0)
    end = time.monotonic() + 6
    count = 0
    while time.monotonic() < end:
        for _ in range(40):
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=1)
                connection.sendall(greeting(mechanism=b"CURVE"))
                kept.append(connection)
            except OSError:
                pass
        count += 1
        for id, client in clients.items():
            begin = time.monotonic()
            client.submit(add(b"n", 1), deadline=5)
            run.check(time.monotonic() - begin < 3,
                      f"a request through replica {id} takes {time.monotonic() - begin:.1f} s beside a crowd")
        for connection in kept[:-600]:
            connection.close()
        del kept[:-600]
    run.equal(cluster.client(0).query(mpx.get(b"n")).body, some(number(3 * count)),
              "what clients did, and a new one comes in")
    run.check(not news.poll(0), "a client that is in, and says nothing, stays in")
    for connection in kept:
        connection.close()
    run.check(metric(cluster, 0, "mpaxos_client_connections_cut_off_total") > 0, "strangers are cut off")
    cluster.settle()


@scenario
def wrong_keys(run):
    """Keys that are good for something else: none at all, an unknown one, a replica's at the client port, a client's at
    the peer port, and each server taken for another."""
    cluster = run.cluster(keys=True, http=True).start_all()
    others = Others(run, cluster)
    others.go_on()
    keys = cluster.keys
    unknown = Pair.new()
    before = {id: metric(cluster, id, REQUESTS) for id in cluster.ids}
    others.stopping.set()
    others.thread.join(60)
    served = {id: metric(cluster, id, REQUESTS) for id in cluster.ids}

    def knock(port, pair, server):
        """Whether a message could be sent at all, and the answer."""
        link = mpx.context.socket(zmq.DEALER)
        link.linger, link.immediate, link.sndtimeo, link.rcvtimeo = 0, 1, 700, 200
        if pair:
            mpx.Curve(pair.public, pair.secret, server).apply(link)
        link.connect(f"tcp://127.0.0.1:{port}")
        try:
            link.send_multipart([b"", mpx.header(PING), b"hello"])
            return link.recv_multipart()
        except zmq.Again:
            return None
        finally:
            link.close()

    writer = keys.pairs["writer"]
    id = 0
    server, other = keys.replicas[0].public, keys.replicas[1].public
    run.check(knock(cluster.client_port(id), writer, server) is not None, "a client with its key is answered")
    served[id] += 1
    for what, port, pair, expected in (
        ("no key", cluster.client_port(id), None, server), ("an unknown key", cluster.client_port(id), unknown, server),
        ("a replica's key", cluster.client_port(id), keys.replicas[1], server),
        ("another server", cluster.client_port(id), writer, other),
        ("no key", cluster.peer_port(id), None, server), ("an unknown key", cluster.peer_port(id), unknown, server),
        ("a client's key", cluster.peer_port(id), keys.pairs["admin"], server),
        ("another server", cluster.peer_port(id), keys.replicas[1], other),
    ):
        run.equal(knock(port, pair, expected), None, f"{what} at port {port}")
    run.check(metric(cluster, id, CLIENT_KEYS) >= 2, "clients' keys that were refused are counted")
    run.check(metric(cluster, id, PEER_KEYS) >= 2, "replicas' keys that were refused are counted")
    run.equal(metric(cluster, id, REFUSED), 0, "frames from strangers that the links got to see")
    run.equal({id: metric(cluster, id, REQUESTS) for id in cluster.ids}, served, f"requests ({before})")
    log = cluster.processes[id].log()
    run.check("refused a connection from" in log and unknown.text not in log, "the refusal is said, and not the key")
    cluster.settle()


@scenario
def liars(run):
    """A replica with a key of its own says what another one has said, at the ports of the others: it is refused before
    anything of it is believed, the link of the other stands, and nothing is held against it."""
    cluster = run.cluster(keys=True, http=True).start_all()
    keys = cluster.keys
    cluster.stop(0)
    ear = mpx.context.socket(zmq.ROUTER)
    ear.linger = 0
    # In the place of replica 0, with its key: the replica at index 2 says HELLO there.
    ear.curve_server, ear.curve_secretkey, ear.curve_publickey = True, keys.replicas[0].secret, keys.replicas[0].public
    ear.bind(f"tcp://127.0.0.1:{cluster.peer_port(0)}")
    hello = None
    end = time.monotonic() + 20
    while hello is None and time.monotonic() < end:
        if ear.poll(100):
            data = ear.recv_multipart()[-1]
            if data[:4] == b"MPP1" and data[5] == 0xF0 and data[6] == 2:
                hello = data
    run.check(hello is not None, "replica 2 says HELLO")
    ear.close()
    cluster.start(0)
    eventually(lambda: [peer["connected"] for peer in cluster.status(0)["peers"]] == [True, True], "all are linked")
    client = cluster.client(2).open()
    liar = mpx.context.socket(zmq.DEALER)
    liar.linger = 0
    mpx.Curve(keys.replicas[1].public, keys.replicas[1].secret, keys.replicas[0].public).apply(liar)
    liar.connect(f"tcp://127.0.0.1:{cluster.peer_port(0)}")
    refused = metric(cluster, 0, REFUSED)
    for n in range(5):
        liar.send(hello)
        run.check(liar.poll(5000), "a liar with a key is told")
        answer = liar.recv_multipart()[-1]
        run.check(b"has the key of replica 1" in answer, f"why: {answer[64:]!r}")
        run.equal([peer["connected"] for peer in cluster.status(0)["peers"]], [True, True], "the links meanwhile")
        run.reply(client.submit(add(b"sum", 1)), "meanwhile", status=OK, body=some(number(n + 1)))
    run.equal(metric(cluster, 0, REFUSED), refused + 5, "each lie is counted")
    liar.close()
    cluster.stop(2)
    cluster.start(2)
    eventually(lambda: [peer["connected"] for peer in cluster.status(0)["peers"]] == [True, True],
               "all are linked again")
    cluster.settle()


if __name__ == "__main__":
    main()
