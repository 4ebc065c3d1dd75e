"""Looks at a replica over HTTP, one connection each, and at its process."""

import contextlib
import http.client
import os
import socket


def health(cluster, id, timeout=10.0):
    """(code, body) of /healthz, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.ports[id][2], timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def connect(cluster, id, timeout=10.0):
    return socket.create_connection(("127.0.0.1", cluster.ports[id][2]), timeout)


def everything(link):
    """All that comes until the other side closes or resets."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := link.recv(1 << 16):
            found += part
    return found


def descriptors(process):
    return os.listdir(f"/proc/{process.pid}/fd")
