"""Keys as an operator meets them: `mpaxos keys`, and what it refuses."""

import os
import re
import shutil
import stat

import zmq
import zmq.auth

from harness import execute, main, scenario
from keyring import Pair

KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\n")


@scenario
def keys_command(run):
    """`mpaxos keys new` and `show`: files that are secret, that nothing is written over, and that other programs
    read.
    """
    folder = run.folder("keys-")
    path = os.path.join(folder, "made", "deeper", "replica-0.key")

    def new(*arguments, code=0):
        return run.finished(execute("keys", "new", *arguments), f"keys new {arguments}", code)

    def show(path, code=0, says=None):
        done = run.finished(execute("keys", "show", path), f"keys show {path}", code)
        if code:
            run.equal(done.output, "", f"what keys show {path} prints where it refuses")
            run.check(len(done.errors.splitlines()) == 1 and done.errors.startswith(f"{path}: ")
                      and says in done.errors,
                      f"keys show says {says!r}: {done.errors!r}")
        return done

    made = new(path)
    run.check(KEY.fullmatch(made.output), f"keys new prints the public key alone: {made.output!r}")
    run.check(len(made.errors.splitlines()) == 1 and made.errors.startswith(f"{path} has the secret key"),
              f"keys new says what to do: {made.errors!r}")
    public = made.output.strip()
    run.equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "the mode of a key file")
    for parent in ("made", "made/deeper"):
        run.equal(stat.S_IMODE(os.stat(os.path.join(folder, parent)).st_mode), 0o700, f"the mode of {parent}")
    read, secret = zmq.auth.load_certificate(path)
    run.equal(read.decode(), public, "the public key as pyzmq reads it")
    run.equal(zmq.curve_public(secret).decode(), public, "the public key of the secret one")
    run.check(secret.decode() not in made.output + made.errors, "no secret key is printed")
    with open(path) as file:
        run.check('name = "replica-0"' in file.read(), "a key is named for its file")
    run.equal(show(path).output, made.output, "what keys show prints")

    before = open(path).read()
    again = new(path, code=3)
    run.check("exists already" in again.errors and again.output == "", f"a second keys new: {again}")
    run.equal(open(path).read(), before, "the file after a second keys new")
    named = os.path.join(folder, "named.key")
    new(named, "--name", "billing", code=0)
    with open(named) as file:
        run.check('name = "billing"' in file.read(), "--name")
    run.check(new(os.path.join(named, "below.key"), code=3).errors, "keys new below a file says so")
    new("", code=2)
    new(code=2)

    # What `show` refuses.
    def file(text, mode=0o600):
        path = os.path.join(folder, f"refused-{len(os.listdir(folder))}.key")
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    pair, other = Pair.new(), Pair.new()
    halves = 'curve\n    public-key = "{}"\n    secret-key = "{}"\n'
    whole = halves.format(pair.text, pair.secret.decode())
    run.equal(show(file(whole)).output.strip(), pair.text, "a file that another program made")
    for mode in (0o640, 0o604, 0o644):
        show(file(whole, mode), 3, f"its mode is {mode:o}")
    show(file(f'curve\n    public-key = "{pair.text}"\n'), 3, "has a public key, where a secret one belongs")
    show(file("name = 1\n"), 3, "is no key file")
    show(file("name = 1\n", mode=0o644), 3, "is no key file")
    show(file(""), 3, "is no key file")
    show(file(halves.format(pair.text, pair.secret.decode()[:39])), 3, "has 39 characters, a key has 40")
    show(file(halves.format(pair.text, other.secret.decode())), 3, "not to the one beside it")
    show(file(halves.format(pair.text, pair.text)), 3, "in place of the secret one")
    show(os.path.join(folder, "none"), 3, "No such file")
    show(folder, 3, "is no file")


@scenario
def keys_check(run):
    """`mpaxos keys check`: all of a sound cluster, and each thing that can be wrong with one."""
    cluster = run.cluster(keys=True, prepare=False)
    ring = cluster.keys

    def check(code, *lines, id=None):
        """`lines`: what the output's lines have, each a tuple of a file and words."""
        chosen = ["--id", str(id)] if id is not None else []
        done = run.finished(execute("keys", "check", "--topology", cluster.topology, *chosen), f"keys check {chosen}",
                            code)
        found = done.output.splitlines()
        if run.equal(len(found), len(lines), f"lines of keys check {chosen}, {done}"):
            for line, (file, words) in zip(found, lines):
                run.check(line.startswith(f"{file}: ") and words in line,
                          f"keys check {chosen} says {words!r} of {file}: {line!r}")
        for pair in [*ring.replicas.values(), *ring.pairs.values()]:
            run.check(pair.secret.decode() not in done.output + done.errors or "secret no more" in done.output,
                      "no secret key is told")
        return done

    def replica(id, words=None):
        return ring.replica_file(id), words or f"ok, replica {id}'s"

    clients = (ring.clients_file, "ok, 3 clients: read 1, write 1, admin 1")
    operator = (ring.operator_file, 'ok, client "admin", role admin')
    sound = [replica(0), replica(1), replica(2), clients, operator]
    check(0, *sound)
    check(0, replica(1), clients, operator, id=1)
    run.finished(execute("keys", "check", "--topology", cluster.topology, "--id", "7"), "--id of no replica", 2)

    # Keys of other hosts are not here, unless they are named.
    os.rename(ring.replica_file(2), ring.replica_file(2) + ".away")
    check(0, *sound[:2], replica(2, "not on this host"), clients, operator)
    check(3, replica(2, "No such file"), clients, operator, id=2)
    os.rename(ring.replica_file(2) + ".away", ring.replica_file(2))

    # A replica's own file.
    def with_file(path, pair, *lines, mode=0o600):
        kept = open(path).read()
        pair.write(path, mode=mode)
        check(3, *lines)
        with open(path, "w") as file:
            file.write(kept)
        os.chmod(path, 0o600)
        check(0, *sound)

    with_file(ring.replica_file(0), ring.replicas[0], replica(0, "its mode is 640"), *sound[1:], mode=0o640)
    stranger = Pair.new()
    with_file(ring.replica_file(0), stranger, replica(0, f"its public key is {stranger.text}"), *sound[1:])
    with_file(ring.replica_file(0), ring.replicas[1], replica(0, "has the key of replica 1"), *sound[1:])
    with_file(ring.replica_file(0), Pair(ring.replicas[0].public, stranger.secret),
              replica(0, "not to the one beside it"), *sound[1:])
    with_file(ring.replica_file(0), Pair(ring.replicas[0].public, b"short"), replica(0, "has 5 characters"), *sound[1:])

    # The operator's.
    with_file(ring.operator_file, stranger, *sound[:4],
              (ring.operator_file, f"its public key is {stranger.text}, which no client"))
    with_file(ring.operator_file, ring.replicas[0], *sound[:4], (ring.operator_file, "has the key of replica 0"))
    with_file(ring.operator_file, ring.pairs["admin"], *sound[:4], (ring.operator_file, "its mode is 644"), mode=0o644)

    # Two keys while one is changed.
    ring.pinned[0] = [stranger.text, ring.replicas[0].text]
    cluster.write_topology()
    check(0, replica(0, "ok, replica 0's, number 2 of its two in the topology"), *sound[1:])

    # A secret in the file that all hosts share.
    ring.pinned[0] = ring.replicas[0].secret.decode()
    cluster.write_topology()
    check(3, (cluster.topology, "is the secret key of " + ring.replica_file(0)), *sound[1:])
    ring.pinned[0] = ring.replicas[0].text
    cluster.write_topology()

    # The clients' file.
    def with_clients(entries, *lines):
        kept, ring.clients = ring.clients, entries
        ring.write_clients()
        check(3, *sound[:3], *lines)
        ring.clients = kept
        ring.write_clients()

    unknown = (ring.operator_file, "ok, but the file of clients, which says what it may do, has a fault")
    with_clients([("a", ring.replicas[1].text, "read")],
                 (ring.clients_file, "client[0].public_key is that of replica 1"), unknown)
    with_clients([("a", ring.pairs["writer"].secret.decode(), "read")],
                 (ring.clients_file, "client[0].public_key is the secret key of " + ring.client_file("writer")),
                 unknown)
    with_clients([("a", stranger.text, "owner")], (ring.clients_file, "client[0].role"), unknown)
    with_clients([("a", stranger.text, "read")], (ring.clients_file, "ok, 1 client: read 1"),
                 (ring.operator_file, "which no client"))
    os.remove(ring.clients_file)
    check(3, *sound[:3], (ring.clients_file, "cannot be read"), (ring.operator_file, "ok, but no file of clients here"))
    ring.write_clients()
    check(0, *sound)

    # A host without any, and a topology without any.
    shutil.rmtree(ring.folder)
    check(3, (ring.folder, "has no key of this cluster"))
    open_cluster = run.cluster(name="open", prepare=False)
    done = run.finished(execute("keys", "check", "--topology", open_cluster.topology), "keys check without keys", 1, "")
    run.check("has no keys" in done.errors, f"keys check of a topology without keys: {done.errors!r}")


if __name__ == "__main__":
    main()
