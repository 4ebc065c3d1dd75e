"""Keys of a cluster under test: pairs that libzmq makes for Python, in files as CZMQ has them. Nothing of the project's
own.
"""

import json
import os
from dataclasses import dataclass

import zmq


@dataclass(frozen=True)
class Pair:
    """Both halves as 40 bytes of Z85."""

    public: bytes
    secret: bytes

    @classmethod
    def new(cls):
        return cls(*zmq.curve_keypair())

    @property
    def text(self):
        """The public half."""
        return self.public.decode()

    def write(self, path, name="test", mode=0o600):
        """A file of both halves; one that is there is replaced."""
        beside = path + ".new"
        with open(beside, "w") as file:
            file.write(
                f'metadata\n    name = "{name}"\ncurve\n    public-key = "{self.text}"\n    secret-key = "{self.secret.decode()}"\n')
        os.chmod(beside, mode)
        os.rename(beside, path)


class Keyring:
    """Who has which key in one cluster: its replicas, and a client of each role. What is changed here is in the files
    after `write`; that of the topology, `pinned`, after the cluster's `write_topology`."""

    ROLES = {"admin": "admin", "writer": "write", "reader": "read"}

    def __init__(self, folder, ids):
        self.folder = folder
        self.replicas = {id: Pair.new() for id in ids}
        # One public key, or a list of two.
        self.pinned = {id: pair.text for id, pair in self.replicas.items()}
        self.pairs = {name: Pair.new() for name in self.ROLES}
        # (name, public key, role), in the order of the file.
        self.clients = [(name, self.pairs[name].text, role) for name, role in self.ROLES.items()]
        os.mkdir(folder, 0o700)
        self.write()

    def write(self):
        for id, pair in self.replicas.items():
            pair.write(self.replica_file(id), f"replica-{id}")
        for name, pair in self.pairs.items():
            pair.write(self.client_file(name), name)
        # The tools find this one by themselves.
        self.pairs["admin"].write(self.operator_file, "operator")
        self.write_clients()

    def write_clients(self):
        lines = []
        for name, public, role in self.clients:
            lines += ["[[client]]", f"name = {json.dumps(name)}", f"public_key = {json.dumps(public)}",
                      f"role = {json.dumps(role)}", ""]
        with open(self.clients_file + ".new", "w") as file:
            file.write("\n".join(lines))
        os.rename(self.clients_file + ".new", self.clients_file)

    def replica_file(self, id):
        return os.path.join(self.folder, f"replica-{id}.key")

    def client_file(self, name):
        return os.path.join(self.folder, f"{name}.key")

    @property
    def operator_file(self):
        return os.path.join(self.folder, "operator.key")

    @property
    def clients_file(self):
        return os.path.join(self.folder, "clients.toml")
