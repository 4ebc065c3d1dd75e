"""Where things lie in pool files, for scenarios that change them: offsets in the file, as of docs/architecture.md."""

import struct

LINE = 64
PAGE = 4096


def crc32c(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def checked(number):
    """A number with its check bits, one word."""
    return number | (crc32c(struct.pack("<Q", number)) & 0xFFFF) << 48


def number(word):
    value = word & (1 << 48) - 1
    assert checked(value) == word, f"{word:#x} is no checked number"
    return value


class PoolFile:
    """The bytes of a pool file of a replica that does not run, and where its region begins."""

    def __init__(self, path, magic):
        self.path = path
        with open(path, "rb") as file:
            self.content = file.read()
        self.region = self.content.index(magic)

    def word(self, offset):
        return struct.unpack_from("<Q", self.content, offset)[0]

    def write(self, offset, data):
        """Changes the file. `restore` takes it back."""
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def flip(self, offset, bit=0):
        self.write(offset, bytes([self.content[offset] ^ 1 << bit]))

    def restore(self):
        with open(self.path, "wb") as file:
            file.write(self.content)


class StateFile(PoolFile):
    def __init__(self, path):
        super().__init__(path, b"MPXSTAT1")
        self.header = self.region + PAGE
        self.first_commit = self.header + 128
        self.newest_commit = self.header + 192
        self.journal = self.header + PAGE
        self.progress = self.journal + self.word(self.header + 24)
        self.root = self.progress + self.word(self.header + 40)

    def records(self):
        """(commit, offset) of each record to be replayed."""
        found, at, commit = [], self.journal, number(self.word(self.first_commit))
        while self.word(at) == commit:
            found.append((commit, at))
            lines = self.word(at + 8)
            at += LINE * (1 + (lines + 7) // 8 + lines)
            commit += 1
        return found


class AcceptorFile(PoolFile):
    SHUTDOWN = PAGE + 6 * LINE

    def __init__(self, path):
        super().__init__(path, b"\x01MPXACCT")
        self.slots = self.word(self.region + 24)
        self.fenced = self.region + PAGE + 1024
        self.votes = self.region + 3 * PAGE

    def lines(self):
        """(epoch, instance, slot, offset) of each vote, newest last."""
        found = []
        for index in range(2 * self.slots):
            at = self.votes + index * LINE
            if self.word(at) != 0:
                found.append((number(self.word(at)), self.word(at + 8), index // 2, at))
        return sorted(found)

    def lose_power(self):
        """As if the machine had been started anew since the pool was opened last."""
        for at in (self.region + self.SHUTDOWN, self.region + self.SHUTDOWN + LINE):
            record = bytearray(self.content[at:at + LINE])
            record[32:40] = struct.pack("<Q", 12345)
            record[60:64] = struct.pack("<I", crc32c(record[:60]))
            self.write(at, record)
