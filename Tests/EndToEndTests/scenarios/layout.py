"""Where things lie in pool files, for scenarios that change them: offsets in the file, as of docs/architecture.md."""

import struct
from typing import NamedTuple

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


class Extent(NamedTuple):
    """Bytes of a file from `start` to before `end`: what they are of, and whether anything is there."""

    region: str
    start: int
    end: int
    used: bool


class PoolFile:
    """The bytes of a pool file of a replica that does not run, and where its region begins."""

    def __init__(self, path, magic):
        self.path = path
        with open(path, "rb") as file:
            self.content = file.read()
        self.region = self.content.index(magic)

    def word(self, offset):
        return struct.unpack_from("<Q", self.content, offset)[0]

    def head(self):
        """Extents of what libpmemobj keeps, of which a part changes or is volatile, and of the page of the identity."""
        name = "libpmemobj"
        return [
            Extent(name, 0, 6656, True), Extent(name, 6656, 2 * PAGE, False), Extent(name, 2 * PAGE, self.region, True),
            Extent("identity", self.region, self.region + PAGE, True),
        ]

    def by_lines(self, region, start, end):
        """Extents of lines that are used where they are not zero."""
        return [Extent(region, at, at + LINE, any(self.content[at:at + LINE])) for at in range(start, end, LINE)]

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
    # What the keys begin with.
    KEY = b"key-"

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

    def extents(self):
        """What lies where, without a gap, up to where the state was ever written."""
        self.replay()
        allocator = self.root + PAGE + 256
        blocks = self.progress + (allocator - self.progress + 64 + 40 * 33 * 8 + 63) // 64 * 64
        records = self.records()
        last = self.journal
        if records:
            at = records[-1][1]
            last = at + LINE * (1 + (self.word(at + 8) + 7) // 8 + self.word(at + 8))
        return [
            *self.head(),
            *self.by_lines("heap header", self.header, self.journal),
            Extent("journal", self.journal, last, True),
            Extent("journal", last, self.progress, False),
            *self.by_lines("progress", self.progress, self.root),
            *self.by_lines("roots", self.root, allocator),
            Extent("allocator", allocator, blocks, True),
            *self.blocks(blocks, self.progress + self.word(allocator + 16)),
        ]

    def replay(self):
        """Brings the lines of the journal home, in `content` alone."""
        content = bytearray(self.content)
        for _, at in self.records():
            count = self.word(at + 8)
            lines = at + LINE * (1 + (count + 7) // 8)
            for index in range(count):
                home = self.progress + LINE * self.word(at + LINE + 8 * index)
                content[home:home + LINE] = self.content[lines + LINE * index:lines + LINE * (index + 1)]
        self.content = bytes(content)

    def blocks(self, at, end):
        """Extents of the blocks of the heap, by what their content is."""
        table, table_block = self.word(self.root + 40), self.word(self.root + 48)
        slots = self.word(self.root + 32)
        found = []
        while at < end:
            size, flags = self.word(at) & ~15, self.word(at) & 15
            assert size >= 32 and (flags & 1 or size <= end - at), f"a block at {at} has {size} bytes, of {end - at}"
            # The last one is free, and reaches beyond what was ever written.
            content, after = at + 16, min(at + size, end)
            found.append(Extent("block headers", at, content, True))
            if flags & 1:
                # The links of its list.
                links = content + 16
                found += [Extent("free blocks", content, links, True), Extent("free blocks", links, after, False)]
            elif flags & 2:
                found.append(Extent("replies", content, after, True))
            elif table_block in (at - self.progress, content - self.progress):
                first = self.progress + table
                last = first + 192 * slots
                found += [Extent("sessions", content, first, False), Extent("sessions", first, last, True),
                          Extent("sessions", last, after, False)]
            else:
                found += self.entry(content, after)
            at = after
        return found

    def entry(self, content, after):
        """Extents of an entry of the key-value service, or of a block of its table."""
        key, value = struct.unpack_from("<II", self.content, content + 16)
        start = content + 24
        if not self.content.startswith(self.KEY, start):
            return [Extent("table", content, after, True)]
        end = start + key + value
        return [Extent("heads of entries", content, start, True), Extent("keys", start, start + key, True),
                Extent("values", start + key, end, True), Extent("slack", end, after, False)]


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

    def extents(self):
        """What lies where, without a gap."""
        arena = self.votes + 2 * LINE * self.slots
        size = self.word(self.region + 32)
        batches = [(self.word(at + 24), self.word(at + 32) & 0xFFFFFFFF) for _, _, _, at in self.lines()]
        tail = max((offset + length for offset, length in batches), default=0)
        found, last = [], arena
        # What the newest have not gone over.
        for offset, length in sorted(set(batches), key=lambda batch: batch[0] % size):
            start = arena + offset % size
            if length and offset + size >= tail and start >= last:
                found += [Extent("batches", last, start, False), Extent("batches", start, start + length, True)]
                last = start + length
        found.append(Extent("batches", last, arena + size, False))
        return [
            *self.head(),
            *self.by_lines("records", self.region + PAGE, self.region + 2 * PAGE),
            *self.by_lines("peers", self.region + 2 * PAGE, self.votes),
            *self.by_lines("votes", self.votes, arena),
            *found,
        ]

    def lose_power(self):
        """As if the machine had been started anew since the pool was opened last."""
        for at in (self.region + self.SHUTDOWN, self.region + self.SHUTDOWN + LINE):
            record = bytearray(self.content[at:at + LINE])
            record[32:40] = struct.pack("<Q", 12345)
            record[60:64] = struct.pack("<I", crc32c(record[:60]))
            self.write(at, record)
