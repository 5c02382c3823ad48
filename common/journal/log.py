"""Whether commits are lost in the write-ahead log of the journal. Pure: the log is bytes.

SQLite takes a log up to the first frame whose checksum is wrong and passes over the rest, without a word: that is how
the torn end of a crash is cut off. A byte that flips in the middle looks the same to it, and takes every later commit
with it. What tells them apart is what follows: behind a torn end there is no whole commit but the one that was torn.
After a power cut under durability "process", which does not promise to survive one, several may be lost as well.

Format: https://www.sqlite.org/fileformat2.html, section 4. Cost: about 10 us a frame of 4 KB.
"""

import struct

import numpy as np

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, two salts, two checksums
_MAGIC = 0x377F0682  # the lowest bit: checksums over big-endian words
_FRAME = 24  # bytes before each page: page number, size of the database after a commit or 0, two salts, two checksums
_MASK = 0xFFFFFFFF
_CHUNK = 1024  # frames at a time


def lost_commits(log: bytes) -> int:
    """How many commits stand behind the first frame that is not whole, beside that which it may be part of; 1 where
    the head of a log with frames is damaged, so that nothing of it can be read."""
    if len(log) <= _HEADER.size:
        return 0
    magic, _, page, _, *salts, first, second = _HEADER.unpack_from(log)
    order = ">" if magic & 1 else "<"
    head = np.frombuffer(log, f"{order}u4", 6).astype(np.uint64)
    if magic & ~1 != _MAGIC or _sums(head[None], *_weights(3)[0])[0] != [first, second]:
        return 1
    width = (_FRAME + page) // 4
    count = (len(log) - _HEADER.size) // (4 * width)
    sums, power = _weights((width - 4) // 2)
    broken, commits = False, 0
    for start in range(0, count, _CHUNK):
        shape = min(_CHUNK, count - start), width
        words, told = (np.frombuffer(log, f"{end}u4", shape[0] * width, _HEADER.size + 4 * start * width).reshape(shape)
                       for end in (order, ">"))
        ours = _sums(np.delete(words, np.s_[2:6], 1).astype(np.uint64), *sums)
        for (_, size, *found), (one, two) in zip(told[:, :6].tolist(), ours):
            if not broken:
                first, second = ((power[0] * first + power[1] * second + one) & _MASK,
                                 (power[1] * first + power[2] * second + two) & _MASK)
                broken = found != [*salts, first, second]
            if broken and found[:2] == salts and size:
                commits += 1
    return max(0, commits - 1)


def _weights(pairs: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[int, int, int]]:
    """SQLite's checksum takes two words x, y at a time: first += x + second, second += y + first. That is linear, so
    the sums over `pairs` of them are those from before times the power of a matrix, [[a, b], [b, d]], plus each word
    times a weight of its own; all of it modulo 2 ** 32."""
    first, second = np.zeros(2 * pairs, np.uint64), np.zeros(2 * pairs, np.uint64)
    a, b, d = 1, 0, 1
    for place in range(2 * pairs - 2, -1, -2):
        first[place:place + 2] = (a + b) & _MASK, b
        second[place:place + 2] = (b + d) & _MASK, d
        a, b, d = (a + b) & _MASK, (b + d) & _MASK, (b + 2 * d) & _MASK
    return (first, second), (a, b, d)


def _sums(words: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[list[int]]:
    """Both sums of each row of `words`, uint64[rows, 2 * pairs], from 0."""
    return (np.stack((words @ first, words @ second), 1) & np.uint64(_MASK)).tolist()
