"""The state pool as a file: where things lie in it, and its digest, reckoned independently of the replicas."""

import struct

from harness import execute
from layout import crc32c

WORD = (1 << 64) - 1
KEYS = (0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3,
        0x1D8E4E27C47D124F, 0xEB44ACCAB455D165, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


def fold(x, y):
    product = x * y
    return product >> 64 ^ product & WORD


def line_hash(line, number):
    """As `LineHash` has it."""
    words = struct.unpack("<8Q", line)
    if not any(words):
        return 0
    place = (number + 1) * 0xD6E8FEB86659FD93 & WORD
    a, b, c, d, e, f, g, h = (word ^ key for word, key in zip(words, KEYS))
    first, second, third, fourth = fold(a, b ^ place), fold(c ^ place, d), fold(e, f ^ place), fold(g ^ place, h)
    return fold((first + third & WORD) ^ place, (second + fourth & WORD) ^ KEYS[0])


def change(path, value, forge=False):
    """Changes a bit of a value in a pool.
    - forge: of one that no process has open; its stored digest is made to fit, as if the replica had executed something
    else."""
    with open(path, "r+b") as file:
        content = file.read()
        at = content.rindex(value)
        changed = bytes([content[at] ^ 1])
        file.seek(at)
        file.write(changed)
        if not forge:
            return at
        # The digest is that of the bytes as they are by now; the stored one stands in the progress line. Both lie
        # behind the journal, which may have older ones.
        root = content.rindex(b"MPXROOT1")
        line = at & ~63
        # The root begins the digested area, whose lines are counted from 0.
        number = (line - root) // 64
        before, after = content[line:line + 64], bytearray(content[line:line + 64])
        after[at - line] ^= 1
        file.flush()
        now = int(execute("digest", "--pool", path).output.split()[1], 16)
        stored = (now - line_hash(bytes(after), number) + line_hash(before, number)) & WORD
        place = content.rindex(struct.pack("<Q", stored), 0, root)
        progress = place - 40
        record = bytearray(content[progress:progress + 64])
        assert crc32c(record[:60]) == struct.unpack_from("<I", record,
                                                         60)[0], "the stored digest is that of a progress line"
        struct.pack_into("<Q", record, 40, now)
        struct.pack_into("<I", record, 60, crc32c(record[:60]))
        file.seek(progress)
        file.write(record)
        return at
