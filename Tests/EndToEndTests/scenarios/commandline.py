"""The executable as a person meets it: commands, outputs, exit codes; and HTTP."""

import concurrent.futures
import json
import os
import re
import shutil
import signal
import struct
import time
import urllib.error
import urllib.request

import mpx
import statefile
from harness import Process, eventually, execute, main, scenario
from mpx import OK, PING, get, put, some


@scenario
def key_value(run):
    """`mpaxos kv`, each operation, its output and its exit code."""
    cluster = run.cluster().start_all()

    def kv(*arguments, code=0, output="", raw=False):
        done = execute("kv", *arguments, "--topology", cluster.topology, text=not raw)
        run.finished(done, f"kv {' '.join(arguments)}", code, output)
        if code:
            run.check(done.errors.strip(), f"kv {' '.join(arguments)} says why it exits with {code}")
        return done

    kv("get", "k", code=1)
    kv("delete", "k", code=1)
    kv("put", "k", "one")
    kv("get", "k", output="one\n")
    kv("get", "k", "--raw", output="one")
    kv("put", "k", "two words")
    kv("get", "k", output="two words\n")
    kv("cas", "k", "wrong", "three", code=1)
    kv("get", "k", output="two words\n")
    kv("cas", "k", "two words", "three")
    kv("get", "k", output="three\n")
    kv("cas", "k", "--absent", "four", code=1)
    kv("cas", "fresh", "--absent", "four")
    kv("get", "fresh", output="four\n")
    run.check("5" in kv("append", "log", "12345", output=None).output, "append prints the length")
    run.check("7" in kv("append", "log", "67", output=None).output, "append prints the length after")
    kv("get", "log", output="1234567\n")
    run.check("5" in kv("add", "n", "5", output=None).output, "add prints the sum")
    run.equal(kv("add", "n", "-7", output=None).output.strip(), "-2", "add of a negative number")
    kv("get", "n", "--raw", output=struct.pack("<q", -2), raw=True)
    kv("add", "k", "1", code=1)
    kv("add", "n", "many", code=2)
    lines = kv("scan", output=None, raw=True).output
    run.equal(sorted(lines.split(b"\n")),
              sorted([b"", b"k\tthree", b"fresh\tfour", b"log\t1234567", b"n\t" + struct.pack("<q", -2)]),
              "a scan of everything")
    kv("scan", "fr", output="fresh\tfour\n")
    kv("scan", "none")
    kv("put", "ümlaut", "wért")
    kv("get", "ümlaut", output="wért\n")
    kv("put", "empty", "")
    kv("get", "empty", output="\n")
    kv("delete", "k")
    kv("get", "k", code=1)
    kv("put", "", "x", code=2)
    kv("get", "k" * 1025, code=2)
    kv("nonsense", "k", code=2)
    # By another client the same is there.
    run.equal(cluster.client().query(get(b"fresh")).body, some(b"four"), "what kv wrote")
    cluster.kill9(cluster.leader())
    kv("put", "after", "a kill")
    kv("get", "after", output="a kill\n")
    cluster.stop(*[id for id in cluster.ids if cluster.alive(id)])
    kv("get", "after", "--timeout", "1", code=4)


@scenario
def status(run):
    """`mpaxos status` with all, some and none of the replicas up."""
    cluster = run.cluster().start_all()
    cluster.client().open().submit(put(b"k", b"v"))
    position, digest = cluster.settle()
    leader = cluster.leader()

    def ask(*options, code=0):
        return run.finished(execute("status", "--topology", cluster.topology, *options), f"status {options}", code)

    table = ask().output.splitlines()
    run.equal(len(table), 5, "a heading, a line for each replica, and one below")
    run.check(table[4].startswith("replicas and clients of e2e are in the clear"),
              f"the line below the table: {table[4]!r}")
    for id in cluster.ids:
        row = table[id + 1].split()
        run.equal((row[0], row[1], row[2]), (str(id), "up", "leader" if id == leader else "follower"),
                  f"row of replica {id}")
        run.equal(row[-3:], [digest, "at", str(position)], f"the digest in the row of replica {id}")
    found = json.loads(ask("--json").output)
    run.equal([entry["id"] for entry in found], cluster.ids, "ids in --json")
    for entry in found:
        run.equal((entry["position"], entry["digest"]["value"], entry["leader"], entry["cluster"]),
                  (position, digest, leader, cluster.name),
                  f"--json of replica {entry['id']}")
        run.check(set(cluster.status(entry["id"])) == set(entry), "--json has the STATUS body")
    down = cluster.followers()[0]
    cluster.kill9(down)
    found = json.loads(ask("--json", "--timeout", "5").output)
    run.check(found[down].get("down") is True and found[down]["id"] == down and found[down].get("error"),
              f"a replica that is down: {found[down]}")
    run.check(all("position" in entry for entry in found if entry["id"] != down), "the others are up")
    run.check("down" in ask("--timeout", "5").output.splitlines()[down + 1], "the table says so")
    cluster.stop(*[id for id in cluster.ids if cluster.alive(id)])
    found = json.loads(ask("--json", "--timeout", "2", code=4).output)
    run.check(all(entry.get("down") is True for entry in found) and len(found) == 3, f"all are down: {found}")
    run.check(ask("--timeout", "2", code=4).output.count("down") == 3, "the table says so")


@scenario
def states_that_differ(run):
    """A value and the stored digest are changed in the pool of a replica that does not run, as if it had executed
    something else. It stops where a majority says that it is the one; where nobody can say nothing is served, and both
    stop."""
    cluster = run.cluster().start_all()
    client = cluster.client().open()
    marked = os.urandom(64)
    client.submit(put(b"marked", marked))
    # The record of that commit is not replayed after a stop in order.
    cluster.settle()
    cluster.stop(*cluster.ids)
    statefile.change(cluster.pools(1)[1], marked, forge=True)
    run.finished(execute("dump", "--pool", cluster.pools(1)[1], "--verify"),
                 "dump --verify of a state that fits its digest", 0)

    def digests():
        return [cluster.status(id)["digest"] for id in (0, 1)]

    def stand_together():
        found = digests()
        return found[0]["executed"] == found[1]["executed"] is not None and [digest["value"] for digest in found]

    def disputes():
        """Just after the start they are not ready either."""
        said = all("states differ" in cluster.processes[id].log() for id in (0, 1))
        return said and [cluster.status(id)["ready"] for id in (0, 1)] == [False, False]

    def ended(id, *words):
        cluster.processes[id].expected_end = True
        run.equal(cluster.processes[id].wait(30), 3, f"the exit code of replica {id}")
        last = cluster.processes[id].log().strip().splitlines()[-1]
        for word in words:
            run.check(word in last, f"replica {id} says {word!r}: {last!r}")

    for id in (0, 1):
        cluster.launch(id)
    values = eventually(stand_together, "the digests stand at the same instance")
    run.check(values[0] != values[1], f"the digests differ: {values}")
    eventually(disputes, "neither is ready")
    for id in (0, 1):
        run.reply(cluster.link(id).call(mpx.QUERY, get(b"marked"), flags=mpx.LOCAL), f"replica {id} serves nothing",
                  status=mpx.NO_LEADER)
    found = execute("status", "--topology", cluster.topology)
    run.equal(found.code, 1, "the exit code of status")
    run.check("the states of replicas differ" in found.errors and f"replica 1 has {values[1]}" in found.errors,
              f"it says who: {found.errors}")
    for id in (0, 1):
        ended(id, "no majority to say which is right", cluster.pools(id)[1])

    # It may stop before it is ready.
    cluster.launch(1).expected_end = True
    cluster.start(0, 2)
    ended(1, "differs from that of a majority", cluster.pools(1)[1])
    run.reply(client.submit(put(b"k", b"v")), "the others go on", status=OK)


@scenario
def damaged_at_rest(run):
    """A bit of a value is changed in the pool of a replica that does not run, by itself or one of three: it finds that
    without the others, before it serves, says so and stops; so does `mpaxos dump --verify`."""
    for count in (1, 3):
        cluster = run.cluster(replicas=count).start_all()
        client = cluster.client().open()
        marked = os.urandom(64)
        client.submit(put(b"marked", marked))
        cluster.settle()
        cluster.stop(*cluster.ids)
        path = cluster.pools(0)[1]
        statefile.change(path, marked)
        found = execute("dump", "--pool", path, "--verify")
        run.check(found.code == 1 and "the digest of the bytes" in found.output + found.errors,
                  f"dump --verify finds it: {found}")
        process = cluster.launch(0)
        process.expected_end = True
        if count > 1:
            cluster.start(*cluster.ids[1:])
        run.equal(process.wait(30), 3, "the exit code")
        run.equal(process.output(), "", "it was not ready")
        last = process.log().strip().splitlines()[-1]
        run.check(path in last and "the digest of the bytes" in last and "restore the file" in last,
                  f"it says what and where: {last!r}")
        if count > 1:
            run.reply(client.submit(put(b"k", b"v")), "the others go on", status=OK)
            for id in cluster.ids[1:]:
                run.check(cluster.status(id)["verification"]["passes"] > 0, f"replica {id} has gone through its state")


@scenario
def damaged_at_work(run):
    """A bit of a value that nobody reads or writes is changed below a replica that runs, while it has work without a
    pause.
    """
    cluster = run.cluster(replicas=1).start_all()
    client = cluster.client().open()
    marked = os.urandom(4000)
    client.submit(put(b"marked", marked))
    # Committed values go home with the next commit at the latest.
    client.submit(put(b"k", b"v"))
    eventually(lambda: cluster.status(0)["verification"]["passes"] > 0, "the first pass is over")
    process = cluster.processes[0]
    process.expected_end = True
    # In the middle, where the record in the journal has the same bytes, but is older than the pass.
    statefile.change(cluster.pools(0)[1], marked[2000:2064])
    began = time.monotonic()
    with cluster.link(0) as link:
        while process.running() and time.monotonic() < began + 60:
            try:
                link.call(mpx.SUBMIT, put(b"n", b"m"), timeout=1)
            except (mpx.Silent, OSError):
                pass
    run.equal(process.wait(0.1), 3, "the exit code")
    print(f"found after {time.monotonic() - began:.1f} s of work")
    last = process.log().strip().splitlines()[-1]
    run.check("the digest of the bytes" in last, f"it says what: {last!r}")


@scenario
def inspection(run):
    """`mpaxos dump` and `mpaxos digest`."""
    cluster = run.cluster().start_all()
    client = cluster.client().open()
    for n in range(50):
        client.submit(put(b"k%d" % n, os.urandom(n * 100)))
    position, digest = cluster.settle()
    acceptor, state = cluster.pools(0)
    run.finished(execute("digest", "--pool", state), "digest of a pool in use", 3, "")
    for pool in (acceptor, state):
        done = run.finished(execute("dump", "--pool", pool), f"dump of {pool} in use", 0)
        run.check(cluster.name in done.output, "dump names the cluster")
    cluster.stop(*cluster.ids)
    for id in cluster.ids:
        acceptor, state = cluster.pools(id)
        done = run.finished(execute("digest", "--pool", state), "digest", 0, f"{position} {digest}\n")
        run.check(re.fullmatch(r"\d+ [0-9a-f]+\n", done.output), f"POSITION VALUE: {done.output!r}")
        for pool in (acceptor, state):
            run.finished(execute("dump", "--pool", pool, "--verify"), f"dump --verify of {pool}", 0)
            json.loads(run.finished(execute("dump", "--pool", pool, "--json"), f"dump --json of {pool}", 0).output)
    run.finished(execute("digest", "--pool", acceptor), "digest of an acceptor.pool", 3, "")
    run.finished(execute("digest", "--pool", state + ".none"), "digest of nothing", 3, "")
    damaged(run, acceptor, state)


def damaged(run, acceptor, state):
    """A changed byte in what is in use is found."""
    for pool in (acceptor, state):
        with open(pool, "rb") as file:
            content = file.read()
        place = content.find(b"e2e\0", 4096)
        with open(pool, "r+b") as file:
            file.seek(place)
            file.write(b"E")
        run.finished(execute("dump", "--pool", pool, "--verify"), f"dump --verify of a damaged {pool}", 1)
        os.truncate(pool, 5000)
        done = execute("dump", "--pool", pool, "--verify")
        run.check(done.code in (1, 3) and done.errors.strip(), f"dump --verify of a cut pool: {done}")


@scenario
def bench_and_simulate(run):
    """`mpaxos bench`, closed and open loop, and `mpaxos simulate`."""
    cluster = run.cluster().start_all()
    for options in (["--clients", "8"], ["--clients", "8", "--connections", "2", "--to", "all", "--read-share", "0.5"],
                    ["--clients", "8", "--rate", "200", "--value-size", "1000", "--keys", "10"]):
        done = execute("bench", "--topology", cluster.topology, "--seconds", "1", "--warmup", "0.2", "--json", "--keys",
                       "1000", *options)
        run.finished(done, f"bench {options}", 0)
        found = json.loads(done.output)
        for key in ("rate", "p50_us", "p90_us", "p99_us", "p999_us", "max_us", "errors", "seconds", "replica_cpu_us",
                    "generator_cpu_us"):
            run.check(isinstance(found.get(key), (int, float)), f"bench has the number {key}: {found}")
        run.equal(found["errors"], 0, f"errors of bench {options}")
        run.check(found["rate"] > 0 and found["p50_us"] <= found["p99_us"] <= found["max_us"],
                  f"figures of bench: {found}")
    run.check("p99" in run.finished(execute("bench", "--topology", cluster.topology, "--seconds", "1", "--warmup", "0"),
                                    "bench", 0).output,
              "bench for a person")
    cluster.settle()
    run.finished(execute("simulate", "--seeds", "0..<2", deadline=120), "simulate", 0)
    run.finished(execute("simulate", "--seeds", "nonsense"), "simulate of nonsense", 2, "")


@scenario
def bench_in_full(run):
    """`mpaxos bench`: ramps, mixes, distributions, sessions that take turns, the time series; and a leader that is
    killed meanwhile.
    """
    cluster = run.cluster().start_all()

    def bench(*options, meanwhile=lambda: None):
        # The state is small: few keys.
        command = ["bench", "--topology", cluster.topology, "--warmup", "0.2", "--json", "--keys", "1000", *options]
        with concurrent.futures.ThreadPoolExecutor() as others:
            other = others.submit(meanwhile)
            done = execute(*command, deadline=120)
            other.result()
        run.finished(done, f"bench {options}", 0)
        found = json.loads(done.output)
        run.equal(found["errors"], 0, f"errors of bench {options}")
        return found

    ramp = bench("--clients", "2,4", "--seconds", "0.5", "--distribution", "zipf", "--value-size", "16-64")
    run.equal([step["level"] for step in ramp["steps"]], [2, 4], "levels of a ramp")
    run.check(all(step["rate"] > 0 for step in ramp["steps"]), f"each step is measured: {ramp['steps']}")
    mix = bench("--clients", "200", "--connections", "4", "--outstanding", "20", "--seconds", "1", "--interval", "0.25",
                "--read-share", "0.3", "--reads", "local", "--delete-share", "0.2", "--create-share", "0.2", "--to",
                "all")
    run.equal(len(mix["replicas"]), 3, "replicas whose CPU is told")
    run.check(len(mix["series"]) >= 3, f"a time series of four parts: {mix['series']}")
    run.check(abs(sum(part["rate"] * part["seconds"]
                      for part in mix["series"]) - mix["completed"]) <= 0.02 * mix["completed"],
                      f"the series adds up: {mix}")

    leader = cluster.leader()
    killed = bench("--clients", "8", "--seconds", "3", "--interval", "0.1", "--request-timeout", "0.3",
                   meanwhile=lambda: kill_under_load(cluster, leader))
    # What is left over at the end may be a few milliseconds.
    last = [part for part in killed["series"] if part["seconds"] > 0.05][-1]
    run.check(last["rate"] > 0, f"the load goes on at another leader: {last}")
    run.check(any(one["id"] == leader and one["cpu_us"] is None for one in killed["replicas"]),
              f"no CPU of a dead replica: {killed['replicas']}")


def kill_under_load(cluster, id):
    link = cluster.link(id)
    before = json.loads(link.call(mpx.STATUS).body)["executed"]
    eventually(lambda: json.loads(link.call(mpx.STATUS).body)["executed"] > before + 100, "the load runs")
    cluster.kill9(id)


@scenario
def usage(run):
    """Errors of usage and of topologies: exit code 2, one line that says where."""
    cluster = run.cluster(prepare=False)
    with open(cluster.topology) as file:
        good = file.read()
    path = os.path.join(cluster.directory, "bad.toml")

    def bad(what, text, pattern):
        with open(path, "w") as file:
            file.write(text)
        for command in (["format", "--id", "0"], ["run", "--id", "0"], ["cluster"], ["status"], ["kv", "get", "k"]):
            done = run.finished(execute(*command, "--topology", path), f"{command[0]} with {what}", 2, "")
            line = done.errors.rstrip("\n")
            run.check("\n" not in line and re.search(pattern, line),
                      f"{command[0]} with {what}: expected one line like {pattern}, got {line!r}")
        run.check(not os.path.exists(cluster.pools(0)[0]), f"nothing is made with {what}")

    place = re.escape(path) + r":(\d+):(\d+): ."
    bad("a syntax error", good.replace("[protocol]", "[protocol"), place)
    bad("a line that is no TOML", good + "\nwhat is this\n", place)
    key = re.escape(path) + ": "
    bad("an unknown key", good + "speed = 9\n", key + r"pipeline\.speed: .")
    bad("a wrong type", good.replace("id = 1", 'id = "one"'), key + r"replica\[1\]\.id: .*expected")
    bad("a missing key", re.sub(r'peer = "[^"]*"\n', "", good, count=1), key + r"replica\[0\]\.peer: .*")
    bad("a duplicate id", good.replace("id = 2", "id = 1"), key + r"replica\[\d\]\.id: .")
    bad("a duplicate endpoint", good.replace(str(cluster.client_port(2)), str(cluster.client_port(1))),
        key + r"replica\[\d\]\.(client|peer): .")
    bad("a value out of range", good.replace('"8MiB"', '"8KiB"'), key + r"storage\.log_size: .*expected")
    bad("a size of no unit", good.replace('"8MiB"', '"8 apples"'), key + r"storage\.log_size: .*expected")
    bad("another transport", good.replace("tcp://", "udp://", 1), key + r"replica\[0\]\.peer: .*expected")
    bad("no replica", 'name = "none"\n', key + r"replica: .")
    bad("ten replicas", 'name = "many"\n' + "".join(
        f'[[replica]]\nid = {n}\npeer = "tcp://127.0.0.1:{7100 + n}"\nclient = "tcp://127.0.0.1:{7200 + n}"\n'
        for n in range(10)), key + r"replica.*: .")
    bad("max_request above an eighth of the log", good.replace("[client]", '[client]\nmax_request = "2MiB"'),
        key + r"client\.max_request: .*expected")
    for command in (
        ["run", "--topology", cluster.topology, "--id", "7"], ["format", "--topology", cluster.topology, "--id", "7"],
        ["run", "--topology", path + ".none", "--id", "0"], ["run", "--topology", cluster.topology],
        ["run", "--id", "0"],
        ["nonsense"], ["run", "--topology", cluster.topology, "--id", "0", "--colour", "red"], ["status"],
    ):
        done = run.finished(execute(*command), " ".join(command), 2, "")
        run.check(done.errors.strip(), f"{' '.join(command)} says what is wrong")
    run.check("format" in execute("--help").output, "--help names the commands")
    run.finished(execute("--help"), "--help", 0)


@scenario
def lifecycle(run):
    """format, run, signals, and what is written where."""
    cluster = run.cluster(http=True, prepare=False, client={"max_request": "128KiB"})
    for id in cluster.ids:
        run.finished(execute("format", "--topology", cluster.topology, "--id", str(id)), "format", 0, "")
        for pool, size in zip(cluster.pools(id), (8 << 20, 32 << 20)):
            found = os.stat(pool)
            run.check(found.st_size >= size, f"{pool} has {found.st_size} bytes")
            run.check(found.st_blocks * 512 >= found.st_size * 0.99, f"{pool} is not sparse: {found.st_blocks} blocks")
        done = run.finished(execute("format", "--topology", cluster.topology, "--id", str(id)), "format once more", 3,
                            "")
        run.check(cluster.pools(id)[0] in done.errors, f"it names the file: {done.errors!r}")
    cluster.start_all()
    for id in cluster.ids:
        over_http(run, cluster, id)
        log = cluster.processes[id].log()
        run.check(re.search("pmem|emulated|msync", log), "the log names the durability")
        run.check(all(len(line) < 1000 for line in log.splitlines()), "a line an event")
    cluster.client().open().submit(put(b"k", b"v"))
    for number in (signal.SIGTERM, signal.SIGINT):
        victim = cluster.leader()
        process = cluster.processes[victim]
        process.expected_end = True
        process.signal(number)
        run.equal(process.wait(30), 0, f"exit code after {number.name}")
        run.check(re.fullmatch(rf"replica {victim} ready: view \d+, leader \d+\n", process.output()),
                  f"standard output: {process.output()!r}")
        cluster.start(victim)
    cluster.settle()
    # The leader of all: what it promised lets it go on as leader when it is back, but that alone serves nobody.
    survivor = cluster.leader()
    cluster.kill9(*[id for id in cluster.ids if id != survivor])
    eventually(lambda: http_code(cluster.http(survivor) + "/healthz") == 503,
               "/healthz answers 503 when no leader is known")
    alone = cluster.processes[survivor]
    alone.expected_end = True
    alone.signal(signal.SIGTERM)
    run.equal(alone.wait(30), 0, "exit code after SIGTERM without a majority")
    unready = cluster.launch(survivor)
    eventually(lambda: cluster.status(survivor)["uptime_s"] > 0.5, "a replica that is alone answers STATUS")
    eventually(lambda: cluster.status(survivor)["role"] != "leader", "a replica that is alone does not lead")
    run.equal(unready.output(), "", "a replica that is alone is not ready")
    run.check(cluster.status(survivor)["leader"] is None, "it knows no leader")
    unready.expected_end = True
    unready.signal(signal.SIGTERM)
    run.equal(unready.wait(30), 0, "exit code after SIGTERM before it was ready")


def http_code(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def over_http(run, cluster, id):
    base = cluster.http(id)
    run.equal(http_code(base + "/healthz"), 200, "/healthz of a replica that is ready")
    run.equal(http_code(base + "/nothing"), 404, "a path that is not")
    with urllib.request.urlopen(base + "/status", timeout=10) as answer:
        run.check("application/json" in answer.headers["Content-Type"], "type of /status")
        found = json.loads(answer.read())
    run.equal(set(found), set(cluster.status(id)), "/status is the STATUS body")
    run.equal((found["id"], found["cluster"]), (id, cluster.name), "/status")
    with urllib.request.urlopen(base + "/metrics", timeout=10) as answer:
        run.check("text/plain" in answer.headers["Content-Type"], "type of /metrics")
        text = answer.read().decode()
    names = set()
    for line in text.splitlines():
        comment = re.fullmatch(r"# (HELP|TYPE) (\w+) .+", line)
        sample = re.fullmatch(r'(\w+)(\{\w+="(?:[^"\\]|\\.)*"(?:,\w+="(?:[^"\\]|\\.)*")*\})? -?[0-9.eE+]+', line)
        if run.check(comment or sample, f"a line of /metrics: {line!r}") and sample:
            name = sample.group(1)
            run.check(name.startswith("mpaxos_"), f"{name} has the prefix")
            run.check(f"# TYPE {name} " in text and f"# HELP {name} " in text, f"{name} is explained")
            names.add(sample.group(1) + (sample.group(2) or ""))
    run.check(len(names) == len([line for line in text.splitlines() if not line.startswith("#")]), "no sample twice")
    run.check("mpaxos_position" in names and 'mpaxos_rejected_total{reason="malformed"}' in names,
              "position and rejected")


@scenario
def cluster_command(run):
    """`mpaxos cluster`: three children, one line, ctrl-C."""
    cluster = run.cluster(prepare=False)
    for round in range(2):
        process = Process(["cluster", "--topology", cluster.topology, *([] if round else ["--format"])],
                          cluster.directory, f"cluster-{round}")
        run.cleanup.callback(process.kill)
        line = eventually(lambda: process.output() if "\n" in process.output() or not process.running() else None,
                          "the cluster says that it serves", 60)
        run.check(process.running() and line.count("\n") == 1,
                  f"one line on standard output: {line!r}; {process.log()[-2000:]}")
        pids = children(process.pid)
        run.equal(len(pids), 3, "three replicas as children")
        client = cluster.client()
        run.equal(client.query(get(b"kept")).body, some(b"value") if round else mpx.NONE,
                  "the state that it had is kept")
        client.open().submit(put(b"kept", b"value"))
        prefixes = {line.split()[0] for line in process.log().splitlines() if line.strip()}
        run.check({"[0]", "[1]", "[2]"} <= prefixes, f"logs are forwarded with a prefix: {prefixes}")
        if round:
            # One that ends stays down; the others go on.
            os.kill(pids[0], signal.SIGKILL)
            eventually(lambda: len(children(process.pid)) == 2, "the child is gone")
            client.submit(put(b"kept", b"by two"))
        process.signal(signal.SIGTERM if round else signal.SIGINT)
        run.equal(process.wait(40), 0, "exit code after ctrl-C")
        run.equal(process.output(), line, "nothing else on standard output")
        eventually(lambda: not any(running(pid) for pid in pids), "no child is left")
    orphans(run, cluster)
    nothing = run.cluster(name="unformatted", prepare=False)
    run.finished(execute("cluster", "--topology", nothing.topology), "cluster without pools", 3, "")


def orphans(run, cluster):
    """A parent that is killed takes its replicas with it."""
    process = Process(["cluster", "--topology", cluster.topology], cluster.directory, "cluster-killed")
    run.cleanup.callback(process.kill)
    eventually(process.output, "the cluster says that it serves", 60)
    pids = children(process.pid)
    process.kill()
    eventually(lambda: not any(running(pid) for pid in pids), "no replica outlives a parent that was killed")


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split() if running(int(child))]
    except FileNotFoundError:
        return []


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


if __name__ == "__main__":
    main()
