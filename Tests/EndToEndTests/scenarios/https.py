"""HTTP for those alone who have a token, and over TLS. Who has not, or says what is no TLS, costs nobody else
anything.
"""

import contextlib
import http.client
import json
import os
import signal
import ssl
import time
import urllib.error
import urllib.request
import warnings

from harness import ROOT, eventually, main, scenario
from looks import connect, descriptors, everything
from mpx import put

CERTIFICATES = os.path.join(ROOT, "Tests", "Certificates")
TOKEN = "a-token-of-24-characters"


def secret_file(cluster, name, text, mode=0o600):
    """Writes the file `name` beside the topology, in place of the one before."""
    path = os.path.join(cluster.directory, name)
    with open(path + ".next", "w") as file:
        file.write(text)
    os.chmod(path + ".next", mode)
    os.rename(path + ".next", path)
    return path


def certify(cluster, which):
    """Puts a certificate of the tests and its private key beside the topology. Returns the context of a client that
    trusts that one.
    """
    for name in ("certificate", "key"):
        with open(os.path.join(CERTIFICATES, f"{which}.{name}.pem")) as file:
            secret_file(cluster, f"{name}.pem", file.read())
    return ssl.create_default_context(cafile=os.path.join(CERTIFICATES, f"{which}.certificate.pem"))


def ask(cluster, id, path, tls=None, token=None, timeout=10.0):
    """(code, headers, body) of a GET by urllib, over TLS where there is a context for it."""
    request = urllib.request.Request(f"{'https' if tls else 'http'}://127.0.0.1:{cluster.ports[id][2]}{path}")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                         *([urllib.request.HTTPSHandler(context=tls)] if tls else []))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def ready(cluster, id, tls, timeout=10.0):
    return ask(cluster, id, "/healthz", tls, timeout=timeout)[::2] == (200, "ready\n")


@scenario
def https(run):
    """A certificate: TLS and nothing else is answered; who holds or breaks off handshakes costs his connection; another
    certificate is taken while the replica runs."""
    cluster = run.cluster(http=True, replicas=1,
                          http_files={"certificate": "certificate.pem", "private_key": "key.pem"})
    first = certify(cluster, "first")
    cluster.start(0)
    process = cluster.processes[0]
    run.check(ready(cluster, 0, first), "/healthz over TLS")
    code, headers, body = ask(cluster, 0, "/status", first)
    run.equal((code, headers.get("Content-Type")), (200, "application/json"), "/status over TLS")
    run.equal(json.loads(body)["role"], "leader", "what it tells")
    for version, taken in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True),
                           (ssl.TLSVersion.TLSv1_1, False)):
        context = ssl.create_default_context(cafile=os.path.join(CERTIFICATES, "first.certificate.pem"))
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
        try:
            answered = ready(cluster, 0, context)
        except urllib.error.URLError:
            answered = False
        run.equal(answered, taken, f"a client of {version.name} is answered")

    # Those who are no clients of TLS, or not to the end, beside one who is.
    held = [connect(cluster, 0, 25.0) for _ in range(3)]
    held_since = time.monotonic()
    held[1].sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    held[2].sendall(b"\x16")
    for text in (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"a" * 70000,
                 b"\x15\x03\x01\0\x02\x02\x28",
                 b"\x16\x03\x01\0\x04\x01\xff\xff\xff", os.urandom(5000)):
        with connect(cluster, 0) as link:
            with contextlib.suppress(ConnectionError):
                link.sendall(text)
            begin = time.monotonic()
            answer = everything(link)
            run.check(b"HTTP" not in answer and len(answer) < 100, f"{text[:20]!r} is not answered: {answer[:80]!r}")
            run.check(time.monotonic() - begin < 2, f"{text[:20]!r} closes its connection at once")
        run.check(ready(cluster, 0, first), "/healthz beside it")
    crowd = [connect(cluster, 0) for _ in range(60)]
    for link in crowd:
        link.sendall(b"\x16\x03\x01\x02\x00\x01")
    run.check(ready(cluster, 0, first), "/healthz beside handshakes that do not get on")
    # Where there are as many as may be, they make place, and are gone at once: who has shaken hands and says nothing
    # more, too.
    before = process.anonymous_memory()
    for _ in range(300):
        crowd.append(first.wrap_socket(connect(cluster, 0), server_hostname="localhost"))
    open_now = len(descriptors(process))
    run.check(open_now < 150, f"{open_now} descriptors are open")
    begin = time.monotonic()
    for _ in range(10):
        run.check(ready(cluster, 0, first), "/healthz beside a crowd")
    took = time.monotonic() - begin
    run.check(took < 2, f"/healthz answers beside a crowd, 10 times in {took:.2f} s")
    for link in crowd:
        link.close()
    # Requests whose answers nobody reads.
    deaf = [first.wrap_socket(connect(cluster, 0), server_hostname="localhost") for _ in range(20)]
    for link in deaf:
        link.settimeout(0.2)
        with contextlib.suppress(TimeoutError, OSError):
            link.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 20000)
    grown = process.anonymous_memory() - before
    run.check(grown < 32 << 20, f"memory for crowds, and answers that nobody reads: {grown >> 20} MiB")
    for link in deaf:
        link.close()

    # At one where no crowd takes their place they have their time.
    waiting = [connect(cluster, 0, 25.0) for _ in range(2)]
    waiting[1].sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    waiting_since = time.monotonic()
    standing = http.client.HTTPSConnection("127.0.0.1", cluster.ports[0][2], timeout=10, context=first)
    standing.request("GET", "/healthz")
    run.equal(standing.getresponse().read(), b"ready\n", "over a connection that stays")

    # Another certificate.
    for name, text in (("certificate.pem", "nonsense"), ("key.pem", "nonsense")):
        path = os.path.join(cluster.directory, name)
        with open(path) as file:
            good = file.read()
        secret_file(cluster, name, text)
        said = process.log().count(f"{path}: is no ")
        process.signal(signal.SIGHUP)
        eventually(lambda: process.log().count(f"{path}: is no ") > said, f"the log says what is wrong with {name}", 10)
        secret_file(cluster, name, good)
        run.check(ready(cluster, 0, first), f"a wrong {name} changes nothing")
    second = certify(cluster, "second")
    process.signal(signal.SIGHUP)
    eventually(lambda: "read again: the certificate of HTTP" in process.log(), "the certificate is read again", 10)
    run.check(ready(cluster, 0, second), "the new certificate")
    try:
        run.check(not ready(cluster, 0, first), "the old one")
    except urllib.error.URLError as error:
        run.check(isinstance(error.reason, ssl.SSLCertVerificationError), f"why the old one is not taken: {error}")
    standing.request("GET", "/healthz")
    run.equal(standing.getresponse().read(), b"ready\n", "a connection that stood goes on")

    for link in waiting:
        run.equal(everything(link), b"", "what a handshake hears that is not finished")
        took = time.monotonic() - waiting_since
        run.check(9 < took < 15, f"it is closed after 10 s, not after {took:.1f} s")
    for link in held:
        run.equal(everything(link), b"", "what those heard that made place")
    cluster.client().open().submit(put(b"k", b"v"))
    # With one that shook hands and is silent: it is not waited for.
    silent = second.wrap_socket(connect(cluster, 0), server_hostname="localhost")
    begin = time.monotonic()
    cluster.stop(0)
    run.check(time.monotonic() - begin < 3, f"SIGTERM beside a silent client: {time.monotonic() - begin:.1f} s")
    silent.close()

    # Refusals.
    for name, mode, text, sentence in (
            ("key.pem", 0o640, None, "its mode is 640"), ("key.pem", 0o600, "nonsense", "is no private key in PEM"),
            ("certificate.pem", 0o600, "nonsense", "is no certificate in PEM"),
            ("certificate.pem", 0o600, open(os.path.join(CERTIFICATES, "first.certificate.pem")).read(),
             "does not belong to the first certificate")):
        certify(cluster, "second")
        path = os.path.join(cluster.directory, name)
        secret_file(cluster, name, text or open(path).read(), mode)
        refused(run, cluster, sentence)
    certify(cluster, "second")
    os.remove(os.path.join(cluster.directory, "key.pem"))
    refused(run, cluster, "key.pem: cannot be read: No such file")


def refused(run, cluster, sentence):
    process = cluster.launch(0)
    process.expected_end = True
    run.equal(process.wait(20), 3, f"exit code, for: {sentence}")
    run.check(sentence in process.log() and process.log().count("\n") < 5, f"it says {sentence!r}: {process.log()}")


@scenario
def http_token(run):
    """A token: nothing is told without it but health; another one is taken while the replica runs. Without [http] all
    is as it was.
    """
    cluster = run.cluster(http=True, replicas=1, http_files={"token": "http.token"})
    secret_file(cluster, "http.token", TOKEN + "\n")
    cluster.start(0)
    process = cluster.processes[0]
    denied = 0
    for path in ("/status", "/metrics", "/", "/nothing", "/healthz/x"):
        for token in (None, "", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x" * 8000):
            code, headers, body = ask(cluster, 0, path, token=token)
            if len(token or "") < 8000:
                run.equal((code, headers.get("WWW-Authenticate"), body), (401, "Bearer", ""),
                          f"{path} with the token {token}")
                denied += 1
            else:
                run.check(code in (400, 401), f"{path} with an endless token: {code}")
                denied += code == 401
    run.check(ready(cluster, 0, None), "health is for all")
    for path, code in (("/status", 200), ("/metrics", 200), ("/nothing", 404)):
        run.equal(ask(cluster, 0, path, token=TOKEN)[0], code, f"{path} with the token")
    run.check(f"\nmpaxos_http_requests_denied_total {denied}\n" in ask(cluster, 0, "/metrics", token=TOKEN)[2],
              f"{denied} are counted")
    # One connection, with the token and without, in turns.
    link = http.client.HTTPConnection("127.0.0.1", cluster.ports[0][2], timeout=10)
    for token, code in ((None, 401), (TOKEN, 200), (None, 401), ("wrong", 401), (TOKEN, 200)):
        link.request("GET", "/status", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = link.getresponse()
        answer.read()
        run.equal(answer.status, code, f"on one connection, with the token {token}")
    # Another token.
    path = os.path.join(cluster.directory, "http.token")
    for number, (text,
                 mode) in enumerate((("short", 0o600), ("x" * 300, 0o600), ("two words are no token", 0o600),
                                     (TOKEN[::-1], 0o644))):
        secret_file(cluster, "http.token", text, mode)
        process.signal(signal.SIGHUP)
        eventually(lambda: process.log().count(f"before the SIGHUP: {path}: its ") == number + 1,
                   f"the log says what is wrong with {text!r}", 10)
        run.equal(ask(cluster, 0, "/status", token=TOKEN)[0], 200, "the token from before")
        run.equal(ask(cluster, 0, "/status", token=text)[0], 401, "a token that was not taken")
    secret_file(cluster, "http.token", TOKEN[::-1])
    process.signal(signal.SIGHUP)
    eventually(lambda: ask(cluster, 0, "/status", token=TOKEN[::-1])[0] == 200, "the new token", 10)
    link.request("GET", "/status", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = link.getresponse()
    answer.read()
    run.equal(answer.status, 401, "the old token, on a connection that stood")
    link.close()
    run.check(TOKEN not in process.log() and TOKEN[::-1] not in process.log(), "no token is in the log")
    cluster.stop(0)
    for text, mode, sentence in (("short", 0o600, "its token has 5 bytes"), (TOKEN, 0o604, "its mode is 604"),
                                 ("\1" * 20, 0o600, "not printable")):
        secret_file(cluster, "http.token", text, mode)
        refused(run, cluster, sentence)
    os.remove(path)
    refused(run, cluster, "http.token: cannot be read: No such file")

    # With keys: all files are read again, or none.
    cluster = run.cluster(http=True, replicas=1, name="keyed", keys=True, http_files={"token": "http.token"})
    secret_file(cluster, "http.token", TOKEN)
    cluster.start(0)
    process = cluster.processes[0]
    for token, roles in ((TOKEN[::-1], "none"), ("short", "write")):
        cluster.keys.clients = [(name, public, roles) for name, public, _ in cluster.keys.clients]
        cluster.keys.write_clients()
        secret_file(cluster, "http.token", token)
        said = process.log().count("before the SIGHUP")
        process.signal(signal.SIGHUP)
        eventually(lambda: process.log().count("before the SIGHUP") > said, "the log says that something is wrong", 10)
        run.equal((ask(cluster, 0, "/status", token=TOKEN)[0], ask(cluster, 0, "/status", token=token)[0]), (200, 401),
                  "the token from before")
        run.check("were read again" not in process.log(), "keys, too, are as they were")
    secret_file(cluster, "http.token", TOKEN[::-1])
    process.signal(signal.SIGHUP)
    eventually(lambda: "read again: the token of HTTP" in process.log(), "the token is read again", 10)
    run.check("keys were read again: 1 of replicas, 3 of clients" in process.log(), f"and so are keys: {process.log()}")
    run.equal(ask(cluster, 0, "/status", token=TOKEN[::-1])[0], 200, "the new token")

    # Without [http].
    cluster = run.cluster(http=True, replicas=1, name="open").start_all()
    for path in ("/status", "/metrics", "/healthz"):
        code, headers, body = ask(cluster, 0, path)
        run.equal((code, sorted(headers)), (200, ["Content-Length", "Content-Type"]), path)
        run.equal(ask(cluster, 0, path, token="any")[0], 200, f"{path} with a token that nobody asked for")
    run.equal(ask(cluster, 0, "/nothing"), (404, {"Content-Length": "0"}, ""), "/nothing")
    cluster.processes[0].signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP is ignored" in cluster.processes[0].log(), "the log says that SIGHUP does nothing")


if __name__ == "__main__":
    main()
