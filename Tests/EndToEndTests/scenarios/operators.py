"""What an operator does, and what becomes of it where the host does not play along: full and closed outputs,
interrupted formats, other sizes, little memory, two processes on one folder."""

import json
import os
import re
import resource
import signal
import subprocess
import time

import harness
import mpx
from harness import die_with_parent, eventually, execute, main, scenario
from mpx import OK, add, get, number, put, some


def command(*arguments, stdout=subprocess.PIPE, before=lambda: None, deadline=60):
    """Runs a command of the executable to its end, with bytes as arguments and as output. (exit code, output, what it
    says)
    """

    def prepare():
        die_with_parent()
        before()

    done = subprocess.run(
        [harness.EXECUTABLE, *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
        timeout=deadline,
        preexec_fn=prepare)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def sentence(run, what, found, codes, *words):
    """An exit code of those that are promised, and one line that helps; no trace of a crash."""
    code, _, errors = found
    last = errors.strip().splitlines()[-1] if errors.strip() else ""
    run.check(code in codes, f"{what}: expected an exit code of {codes}, got {code}, {errors[-600:]!r}")
    run.check(len(last.split()) > 4 and "Fatal error" not in errors and "*** " not in errors
              and "stopped:" not in errors,
              f"{what}: a sentence, and no crash: {errors[-600:]!r}")
    for word in words:
        run.check(word in last, f"{what}: the sentence says {word!r}: {last!r}")


@scenario
def bytes_of_keys(run):
    """`mpaxos kv` takes and gives bytes, whether they are UTF-8 or not; two keys are two."""
    cluster = run.cluster(replicas=1).start_all()

    def kv(*arguments, code=0, output=b""):
        found = command(b"kv", *arguments, b"--topology", cluster.topology.encode())
        run.equal((found[0], found[1]), (code, output), f"kv {arguments}: {found[2]}")

    keys = [b"\xff", b"\xfe", b"\xef\xbf\xbd", b"a\x80", b"a\x81", b"\xf4\x8f\xbf\xbf", b"\xf4\x8f\xbc\x80", b"\xc3",
            b"\xc3\xa4", b"\xf0\x9f\x98"]
    for place, key in enumerate(keys):
        kv(b"put", key, b"\xf5%d\xff" % place)
    client = cluster.client()
    for place, key in enumerate(keys):
        kv(b"get", key, b"--raw", output=b"\xf5%d\xff" % place)
        run.equal(client.query(get(key)).body, some(b"\xf5%d\xff" % place), f"what another client finds at {key}")
    kv(b"cas", b"\xff", b"\xf50\xfe", b"x", code=1)
    kv(b"cas", b"\xff", b"\xf50\xff", b"\x80")
    kv(b"append", b"\xff", b"\x81", output=b"2\n")
    kv(b"get", b"\xff", output=b"\x80\x81\n")
    kv(b"add", b"\xfd", b"-3", output=b"-3\n")
    for arguments in ((b"status", b"--topology"), (b"dump", b"--pool"), (b"digest", b"--pool")):
        found = command(*arguments, os.path.join(cluster.directory, "x").encode() + b"\xff")
        sentence(run, f"{arguments} a name that is no text", found, [2], "not UTF-8")
    kv(b"delete", b"\xfe")
    kv(b"get", b"\xfe", code=1)
    kv(b"get", b"a\x81", output=b"\xf54\xff\n")
    kv(b"scan", b"a\x80", output=b"a\x80\t\xf53\xff\n")


@scenario
def outputs(run):
    """A result that cannot be written is an error of every command: exit code 1 and a sentence. A replica goes on."""
    cluster = run.cluster(replicas=1)
    with open("/dev/full", "wb") as full:
        cluster.processes[0] = process = harness.Process(
            ["run", "--topology", cluster.topology, "--id", "0"], cluster.directory, "full-0")
        process.id, process.expected_end = 0, False
        cluster.history.append(process)
        cluster.await_ready(0)
        execute("kv", "put", "k", "v", "--topology", cluster.topology)
        topology = ["--topology", cluster.topology]
        commands = [
            ["--version"], ["--help"], ["kv", "get", "k", *topology], ["kv", "scan", *topology],
            ["kv", "append", "k", "v", *topology],
            ["kv", "add", "n", "1", *topology], ["status", *topology], ["status", "--json", *topology],
            ["dump", "--pool", cluster.pools(0)[0]], ["dump", "--json", "--pool", cluster.pools(0)[1]],
            ["bench", "--seconds", "0.1", "--warmup", "0", "--clients", "1", *topology], ["simulate", "--seed", "1"],
            ["simulate", "--seed", "1", "--trace"], ["simulate", "--seeds", "1..<2"],
        ]
        for arguments in commands:
            what = " ".join(arguments[:3])
            sentence(run, f"{what} > /dev/full", command(*arguments, stdout=full), [1], "standard output")
            sentence(run, f"{what} >&-", command(*arguments, before=lambda: os.close(1)), [1], "standard output")
            reader, writer = os.pipe()
            os.close(reader)
            sentence(run, f"{what} | true", command(*arguments, stdout=writer), [1], "standard output")
            os.close(writer)
        code, _, _ = command(*["kv", "put", "k", "v", *topology],
                             before=lambda: (os.close(0), os.close(1), os.close(2)))
        run.equal(code, 0, "what prints nothing needs no output")
        cluster.stop(0)
        sentence(run, "digest > /dev/full", command("digest", "--pool", cluster.pools(0)[1], stdout=full), [1],
                 "standard output")
        # A replica has more to do than to say that it is ready.
        for name, options in (("full", {"stdout": full}),
                              ("closed", {"preexec_fn": lambda: (die_with_parent(), os.close(1))})):
            popen = subprocess.Popen(
                [harness.EXECUTABLE, "run", *topology, "--id", "0"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                **{"preexec_fn": die_with_parent, **options})
            client = cluster.client().open()
            run.reply(client.submit(put(b"k", b"v")), f"a replica with a {name} output serves", status=OK)
            popen.send_signal(signal.SIGTERM)
            errors = popen.communicate(timeout=30)[1].decode(errors="replace")
            run.equal(popen.returncode, 0, f"the exit code of a replica with a {name} output")
            run.check("standard output" in errors, f"it says that it could not say: {errors[-500:]!r}")


def files(cluster, id):
    folder = os.path.dirname(cluster.pools(id)[0])
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else None


@scenario
def interrupted_format(run):
    """A format that was killed, wherever: no pool has its name, or both have; `run` says to format again, and that
    works.
    """
    cluster = run.cluster(replicas=1, prepare=False)
    format = ["format", "--topology", cluster.topology, "--id", "0"]
    start = ["run", "--topology", cluster.topology, "--id", "0"]
    pools = cluster.pools(0)
    begin = time.monotonic()
    run.equal(command(*format)[0], 0, "a format")
    took = time.monotonic() - begin
    run.equal(files(cluster, 0), ["acceptor.pool", "state.pool"], "what a format leaves")
    sentence(run, "a format of what is there", command(*format), [3], "exists already", "can be run")

    def unfinished(pool, content=None):
        os.rename(pool, pool + ".unfinished")
        if content is not None:
            with open(pool + ".unfinished", "wb") as file:
                file.write(content)

    def heals(what):
        sentence(run, f"run after {what}", command(*start), [3], "was interrupted", "format it again")
        run.equal(command(*format)[0], 0, f"format after {what}")
        run.equal(files(cluster, 0), ["acceptor.pool", "state.pool"], f"what is there after {what} and a format")

    # Between its two last steps, in either order, which a loss of power may change; and before those.
    for first in pools:
        unfinished(first)
        heals(f"all but the rename of {first}")
    for first in pools:
        for content in (b"", bytes(1 << 16), None):
            os.remove(next(pool for pool in pools if pool != first))
            unfinished(first, content)
            heals(f"an unfinished {first} of {content and len(content)} bytes")
    # Wherever a kill comes.
    os.remove(pools[0]), os.remove(pools[1])
    for step in range(12):
        popen = subprocess.Popen([harness.EXECUTABLE, *format], preexec_fn=die_with_parent)
        time.sleep(took * step / 11)
        popen.kill()
        popen.wait()
        left = files(cluster, 0) or []
        named = [name for name in left if name.endswith(".pool")]
        if named == ["acceptor.pool", "state.pool"]:
            for pool in pools:
                run.equal(execute("dump", "--verify", "--pool", pool).code, 0, f"{pool} is whole")
                os.remove(pool)
        elif left:
            heals(f"a kill in step {step}, which left {left}")
            os.remove(pools[0]), os.remove(pools[1])
        else:
            sentence(run, "run where there is nothing", command(*start), [3], "no such pool", "never ran")
    # One pool that is gone is something else, whatever lies beside it.
    run.equal(command(*format)[0], 0, "a format")
    os.rename(pools[1], pools[1] + ".away")
    for arguments in (format, start):
        sentence(run, f"{arguments[0]} with one pool", command(*arguments), [3], "is missing while",
                 "Put the missing file back")
    with open(pools[1] + ".unfinished", "wb") as file:
        file.write(b"x" * 10000)
    for arguments in (format, start):
        sentence(run, f"{arguments[0]} with one pool and another's leftovers", command(*arguments), [3],
                 "is missing while")
    os.rename(pools[1] + ".away", pools[1])
    cluster.start(0)
    run.reply(cluster.client().submit(put(b"k", b"v")), "with its pool back", status=OK)
    cluster.stop(0)


@scenario
def failed_format(run):
    """A format that cannot be: a sentence, and nothing is left of it."""
    cluster = run.cluster(replicas=1, prepare=False)
    directory = cluster.sections["storage"]["directory"]
    format = ["format", "--topology", cluster.topology, "--id", "0"]

    def fails(what, *words, before=lambda: None, codes=(3,)):
        sentence(run, what, command(*format, before=before), codes, *words)

    fails("a limit of the size of files", "ulimit -f",
          before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24, 1 << 24)))
    run.check(not os.path.exists(directory), "nothing is left of it")
    fails("a limit that the second pool meets", "ulimit -f",
          before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, 20 << 20)))
    run.check(not os.path.exists(directory), "nothing is left of it either")
    with open(directory, "w") as file:
        file.write("a file")
    fails("a file in place of the folder", "cannot create the folder")
    for verb in ("run",):
        sentence(run, f"{verb} with a file in place of the folder", command(verb, *format[1:]), [3], directory)
    os.remove(directory)
    for what, content in (("a text", b"hello, here is a text" * 9), ("zeros", bytes(100))):
        with open(directory, "wb") as file:
            file.write(content)
        for verb in ("dump", "digest"):
            sentence(run, f"{verb} of {what}", command(verb, "--pool", directory), [3], "not a pool file")
        os.remove(directory)
    cluster.sections["storage"]["directory"] = os.path.join(directory, "x" * 300)
    cluster.write_topology()
    fails("a name too long", "cannot create the folder")
    cluster.sections["storage"]["directory"] = "/proc/mpaxos"
    cluster.write_topology()
    fails("a file system that takes no files", "cannot create the folder")
    cluster.sections["storage"]["directory"] = directory
    cluster.write_topology()
    if os.geteuid() == 0:
        os.mkdir(directory, 0o700)
        os.chmod(cluster.directory, 0o755)
        fails("another user", "cannot create the folder", before=lambda: os.setuid(65534))
        os.chmod(directory, 0o777)
        run.equal(command(*format)[0], 0, "a format by the right one")
        os.chmod(os.path.join(directory, "0"), 0o700)
        sentence(run, "a start by another user", command("run", *format[1:], before=lambda: os.setuid(65534)), [3],
                 "cannot open its folder")
        os.chmod(os.path.join(directory, "0"), 0o755)
        sentence(run, "a start by another user", command("run", *format[1:], before=lambda: os.setuid(65534)), [3],
                 "must be able to write")
        for pool in cluster.pools(0):
            sentence(run, "dump by another user", command("dump", "--pool", pool, before=lambda: os.setuid(65534)), [3],
                     "may read")


@scenario
def log_size(run):
    """Another log_size is taken up at the next start: all that was promised, voted and decided is there, and a kill
    does no harm.
    """
    cluster = run.cluster().start_all()
    client = cluster.client().open()
    value = os.urandom(100_000)
    for n in range(150):
        client.submit(put(b"k%d" % (n % 20), value))
    client.submit(add(b"n", 1))
    cluster.settle()
    cluster.stop(*cluster.ids)

    def size(id):
        return cluster.status(id)["acceptor_pool"]["size"] >> 20

    def resize(text):
        cluster.sections["storage"]["log_size"] = text
        cluster.write_topology()

    count = 1
    before = {id: os.path.getsize(cluster.pools(id)[0]) for id in cluster.ids}
    for text, least, most in (("32MiB", 28, 36), ("8MiB", 8, 12), ("12MiB", 12, 16)):
        resize(text)
        # One replica alone first: they need not be alike.
        cluster.start(0, 1)
        run.check(least <= size(0) < most, f"with log_size = {text} the log has {size(0)} MiB")
        run.check("log_size" in cluster.processes[0].log(), f"it says so: {cluster.processes[0].log()!r}")
        count += 1
        run.equal(client.submit(add(b"n", 1)).body, some(number(count)), "the count goes on")
        cluster.start(2)
        cluster.settle()
        run.equal(client.query(get(b"k7")).body, some(value), "a value")
        cluster.stop(*cluster.ids)
        run.equal(files(cluster, 1), ["acceptor.pool", "state.pool"], "nothing is left beside")
        for id in cluster.ids:
            run.equal(execute("dump", "--verify", "--pool", cluster.pools(id)[0]).code, 0, "dump --verify of the log")
    # As format would have made it.
    resize("8MiB")
    cluster.start(*cluster.ids)
    run.equal({id: os.path.getsize(cluster.pools(id)[0]) for id in cluster.ids}, before, "the size of the files")
    # Killed in the middle, again and again, with a majority that has to remember its votes.
    for n in range(10):
        cluster.kill9(*cluster.ids)
        resize("24MiB" if n % 2 else "8MiB")
        for id in cluster.ids:
            cluster.launch(id)
        time.sleep(0.004 * n)
        cluster.kill9(*cluster.ids)
        cluster.start(*cluster.ids)
        count += 1
        run.equal(client.submit(add(b"n", 1)).body, some(number(count)), f"the count after kill {n}")
    cluster.settle()
    cluster.stop(*cluster.ids)
    # Where there is no room for it, it goes on with what it has, and says so.
    cluster.run_prefix = lambda id: ["prlimit", f"--fsize={64 << 20}"]
    resize("128MiB")
    cluster.start(*cluster.ids)
    count += 1
    run.equal(client.submit(add(b"n", 1)).body, some(number(count)), "the count with the log as it was")
    run.check("goes on so, since it cannot be changed" in cluster.processes[0].log(), "it says that it could not")


@scenario
def full_file_system(run):
    """A file system without room for a format, or for a larger log: a sentence, nothing is left behind, and a replica
    that has its pools goes on."""
    cluster = run.cluster(replicas=1, prepare=False)
    directory = cluster.sections["storage"]["directory"]
    os.mkdir(directory)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs",
                                            directory]).returncode != 0:
        raise harness.Skipped("mounting a file system takes root")
    run.cleanup.callback(lambda: subprocess.run(["umount", "-l", directory]))
    format = ["format", "--topology", cluster.topology, "--id", "0"]
    sentence(run, "a format", command(*format), [3], "no room for", directory)
    run.equal(os.listdir(directory), [], "what it leaves")
    subprocess.run(["mount", "-o", "remount,size=60m", directory], check=True)
    run.equal(command(*format)[0], 0, "a format with more room")
    cluster.sections["storage"]["log_size"] = "32MiB"
    cluster.write_topology()
    cluster.start(0)
    run.check("no room for" in cluster.processes[0].log() and "goes on so" in cluster.processes[0].log(),
              "it says that there is no room")
    client = cluster.client().open()
    run.reply(client.submit(put(b"k", b"v")), "it serves", status=OK)
    run.equal(files(cluster, 0), ["acceptor.pool", "state.pool"], "what is there")
    cluster.stop(0)
    subprocess.run(["mount", "-o", "remount,size=120m", directory], check=True)
    cluster.start(0)
    run.check(cluster.status(0)["acceptor_pool"]["size"] > 28 << 20, "with more room the log grows")
    run.equal(client.query(get(b"k")).body, some(b"v"), "what it had")
    cluster.stop(0)


@scenario
def little_memory(run):
    """With whatever limit of its address space, a replica starts, or ends with a sentence; so do the commands that read
    pools.
    """
    cluster = run.cluster(replicas=1)
    start = ["run", "--topology", cluster.topology, "--id", "0"]
    pools = cluster.pools(0)
    outcomes = {}
    # With less the loader finds no room for the libraries.
    for limit in (*range(120, 440, 20), 500, 600, 900):
        cap = lambda: resource.setrlimit(resource.RLIMIT_AS, (limit << 20, limit << 20))
        popen = subprocess.Popen(
            [harness.EXECUTABLE, *start], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: (die_with_parent(), cap()))
        ready = popen.stdout.readline()
        if ready:
            popen.send_signal(signal.SIGTERM)
        _, errors = popen.communicate(timeout=30)
        outcomes[limit] = popen.returncode
        run.check(popen.returncode == 0 or not ready,
                  f"run with {limit} MiB: once it is ready it goes on, not {popen.returncode}: {errors[-300:]!r}")
        if not ready:
            sentence(run, f"run with {limit} MiB", (popen.returncode, b"", errors.decode(errors="replace")), [2, 3])
    for limit in range(120, 300, 40):
        cap = lambda: resource.setrlimit(resource.RLIMIT_AS, (limit << 20, limit << 20))
        cluster.sections["storage"]["directory"] = os.path.join(cluster.directory, f"{limit}")
        cluster.write_topology()
        found = command("format", *start[1:], before=cap)
        if found[0]:
            sentence(run, f"format with {limit} MiB", found, [3])
        for pool in pools:
            found = command("dump", "--verify", "--pool", pool, before=cap)
            if found[0]:
                sentence(run, f"dump with {limit} MiB", found, [2, 3])
    run.check(outcomes[120] == 3 and outcomes[900] == 0, f"one limit is too little, and one is enough: {outcomes}")


@scenario
def memory_of_dump(run):
    """`mpaxos dump` of a large pool that holds little takes little memory, whether a replica uses it or not."""
    cluster = run.cluster(replicas=1, storage={"state_size": "512MiB"}, prepare=True).start_all()
    cluster.client().open().submit(put(b"k", b"v" * 100_000))

    def peak(*options):
        popen = subprocess.Popen(
            [harness.EXECUTABLE, "dump", "--pool", cluster.pools(0)[1], *options], stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent)
        _, status, usage = os.wait4(popen.pid, 0)
        popen.returncode = os.waitstatus_to_exitcode(status)
        run.equal(popen.returncode, 0, f"dump {options}")
        return usage.ru_maxrss >> 10

    _, digest = cluster.settle()
    for stopped in (False, True):
        if stopped:
            # Commits are left to be replayed, which a dump sees as done.
            cluster.kill9(0)
            shown = json.loads(execute("dump", "--json", "--pool", cluster.pools(0)[1]).output)["state"]
            run.check(shown["replayed_commits"] > 0 and shown["digest"] == digest, f"what a dump shows: {shown}")
        for options in ((), ("--verify",), ("--json",)):
            taken = peak(*options)
            run.check(taken < 200, f"dump {options} of a pool of 512 MiB, stopped: {stopped}, took {taken} MiB")


@scenario
def one_process(run):
    """A folder is one process's: another one that runs, formats or digests is refused, as long as the first is
    there.
    """
    cluster = run.cluster(replicas=1).start_all()
    for name in ("run", "digest"):
        options = ["--pool", cluster.pools(0)[1]] if name == "digest" else ["--topology", cluster.topology, "--id", "0"]
        sentence(run, f"{name} of what is in use", command(name, *options), [3], "another process has it open",
                 cluster.directory)
    pid = cluster.processes[0].pid
    inherited = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with open(f"/proc/{pid}/fdinfo/{number}") as file:
            flags = int(re.search(r"flags:\s+(\d+)", file.read()).group(1), 8)
        if int(number) > 2 and not flags & os.O_CLOEXEC:
            inherited.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    run.check(not [name for name in inherited if name.startswith("/")], f"what a child would inherit: {inherited}")
    # What holds a lock goes with the process, not with its children.
    cluster.kill9(0)
    cluster.start(0)


if __name__ == "__main__":
    main()
