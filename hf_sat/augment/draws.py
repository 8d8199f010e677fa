"""Random draws that depend on a seed, a name and a key alone: the same in any process, worker, order and release.

A draw is read off BLAKE2b in counter mode. Seeding costs a quarter of a microsecond, where `random.Random(seed)` takes
four: each operation on each text can have a stream of its own. `hash()` would differ from process to process.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

from .checks import is_whole, refuse

_WORDS = struct.Struct("<8Q").unpack
_UNIT = 2.0**-64


class Draws:
    """A stream of draws.

    Args:
        stream: names the stream; equal bytes give equal draws.

    Example:
        >>> Draws(b"0:swap:0:7").sample(10, 3) == Draws(b"0:swap:0:7").sample(10, 3)
        True
    """

    __slots__ = ("_blocks", "_pool", "_stream")

    def __init__(self, stream: bytes):
        self._stream = stream
        self._pool = list(_WORDS(blake2b(stream).digest()))
        self._blocks = 0

    def _word(self) -> int:
        if not self._pool:
            self._blocks += 1
            self._pool = list(_WORDS(blake2b(b"%b#%d" % (self._stream, self._blocks)).digest()))
        return self._pool.pop()

    def below(self, size: int) -> int:
        """A whole number in [0, size)."""
        return self._word() % size  # off from uniform by size / 2^64

    def count(self, expected: float) -> int:
        """`expected` rounded up or down at random, so that its mean stays: 0.4 is 1 in 40 % of the draws."""
        return int(expected + self._word() * _UNIT)

    def choice(self, options: Sequence) -> Any:
        return options[self._word() % len(options)]

    def order(self, size: int) -> Iterator[int]:
        """The numbers below `size` in random order, each drawn when it is asked for."""
        moved: dict[int, int] = {}
        for left in range(size, 0, -1):
            at = self._word() % left
            yield moved.get(at, at)
            moved[at] = moved.get(left - 1, left - 1)

    def sample(self, size: int, count: int) -> list[int]:
        """`count` different numbers below `size`, sorted."""
        if count == 1:
            return [self._word() % size]
        if count > size // 2:
            left_out = set(self.sample(size, size - count)) if count < size else ()
            return [number for number in range(size) if number not in left_out]
        chosen: set[int] = set()
        while len(chosen) < count:
            chosen.add(self._word() % size)
        return sorted(chosen)

    def rng(self) -> random.Random:
        """A `random.Random` of this stream, for code that needs one."""
        return random.Random(self._word())


def key_bytes(key: Any) -> bytes:
    """A key as the end of a stream's name; 5 and (5,) are the same key."""
    if type(key) is int:
        return b"%d" % key
    if isinstance(key, tuple) and key and all(is_whole(part) for part in key):
        return b",".join([b"%d" % int(part) for part in key])
    if is_whole(key):
        return b"%d" % int(key)
    raise refuse("key", key, "give a whole number or a tuple of them, such as (epoch, sample_id).")
