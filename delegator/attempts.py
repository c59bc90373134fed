"""Misses by name: whoever guesses has to wait. One table for every door that people or devices knock at.

So many misses of one name within a window, counted from its first one, and the name waits until the window is over;
who counts says which names an attempt is under (a user, an address, both) and how many misses each may have.
What else is counted in this product follows other laws, and shares nothing with this but the word: the recorder's
allowances are buckets that fill again as time goes, and a crowd is who stands there now, whatever the time.
The invariant: the table is bounded, and the name that began longest ago is forgotten first, so a flood costs memory
once and frees the newest guesser last.
Must not live here: what a miss is, and what is said to whoever waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Misses:
    since: float
    count: int = 0


class Attempts:
    """`clock` gives seconds that only grow; `window` is in seconds; so many names are remembered."""

    def __init__(self, clock: Callable[[], float], window: float, remembered: int) -> None:
        self._clock, self._window, self._remembered = clock, window, remembered
        self._table: OrderedDict[Hashable, _Misses] = OrderedDict()

    def wait(self, allowed: Mapping[Hashable, int]) -> int:
        """Seconds until an attempt under all these names may be made, each with so many misses; 0 for now."""
        return max((self._wait(name, most) for name, most in allowed.items()), default=0)

    def missed(self, allowed: Mapping[Hashable, int]) -> None:
        """An attempt under these names was one."""
        for name in allowed:
            self._current(name).count += 1

    def _wait(self, name: Hashable, most: int) -> int:
        misses = self._table.get(name)
        if misses is None or misses.count < most:
            return 0
        return max(0, int(misses.since + self._window - self._clock() + 0.999))

    def _current(self, name: Hashable) -> _Misses:
        misses = self._table.get(name)
        if misses is None or misses.since + self._window <= self._clock():
            misses = self._table[name] = _Misses(self._clock())
            self._table.move_to_end(name)
            if len(self._table) > self._remembered:
                self._table.popitem(last=False)
        return misses

    def __len__(self) -> int:
        return len(self._table)
