"""Clusters with keys: clients of other libraries get in with theirs."""

import ctypes.util
import os
import shutil
import subprocess
import sys

from harness import Skipped, main, scenario

CLIENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients")


def talk(run, cluster, id, *command):
    """Runs a program of `clients/`, which writes and reads a key of its own through replica `id`, with the file of a key pair that it loads
    with its library's means."""
    done = subprocess.run(
        [*command, cluster.endpoint(id), cluster.keys.client_file("writer"), cluster.keys.replicas[id].text],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    run.equal((done.returncode, done.stdout, done.stderr), (0, "", ""), f"{' '.join(map(os.path.basename, command))} through replica {id}")


def built(run, source, *options):
    """The program that a C compiler makes of `source`."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise Skipped("there is no C compiler")
    program = os.path.join(run.folder("client-"), "curve_client")
    done = subprocess.run(
        [compiler, "-Wall", "-Werror", "-o", program, os.path.join(CLIENTS, source), *options], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{source} does not compile: {done.stderr}")
    return program


@scenario
def interop(run):
    """pyzmq and CZMQ."""
    if not ctypes.util.find_library("czmq"):
        raise Skipped("there is no libczmq: scripts/setup installs it")
    cluster = run.cluster(keys=True).start_all()
    talk(run, cluster, 0, sys.executable, os.path.join(CLIENTS, "curve_client.py"))
    talk(run, cluster, 1, built(run, "curve_client.c", "-l:libczmq.so.4"))


@scenario
def interop_java(run):
    """JeroMQ, whose CURVE is not libsodium's."""
    if not shutil.which("java") or not os.environ.get("MPAXOS_JEROMQ"):
        raise Skipped("there is no java, or MPAXOS_JEROMQ does not name a class path of JeroMQ 0.5 or later (docs/testing.md)")
    cluster = run.cluster(keys=True).start_all()
    talk(run, cluster, 2, "java", "-cp", os.environ["MPAXOS_JEROMQ"], os.path.join(CLIENTS, "CurveClient.java"))


if __name__ == "__main__":
    main()
