"""How the desk refuses what people say: always a ValueError, so that each door may show it in its own way.

A plain ValueError is a sentence about one word. The others say more, for doors that can make use of it.
Must not live here: what is refused (forms, sheets, contents), what a door makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class Clash(ValueError):
    """Fields that do not go together, or one that is missing beside others.

    The sentence names each field in braces, since every door calls them otherwise: `--until` is an option, "until" the
    label of an input. `at` is the field at which a door shows it; `said` is what people wrote into a field, which is
    told behind its name, so that a brace in it stays one."""

    def __init__(self, sentence: str, *, at: str, **said: object) -> None:
        self._sentence, self._said, self.at = sentence, said, at
        super().__init__(self.called(_plain))

    def called(self, how: Callable[[str], str]) -> str:
        """The sentence, with each field called so."""
        return self._sentence.format_map(_Names(
            lambda field: f"{how(field)} {self._said[field]}" if field in self._said else how(field)))

    @property
    def reason(self) -> str:
        """The same behind the name of its field, as all reasons of a sheet are told: "until: is not after from"."""
        rest = self._sentence.removeprefix(f"{{{self.at}}} ").format_map(_Names(_plain))
        return f"{self.at}: {rest}"


def _plain(field: str) -> str:
    return field.replace("_", " ")


class _Names(dict[str, Any]):
    """A name for whatever field is asked for."""

    def __init__(self, how: Callable[[str], str]) -> None:
        super().__init__()
        self._how = how

    def __missing__(self, field: str) -> str:
        return self._how(field)


class Unfit(ValueError):
    """A file, or what was pasted in its place, that does not hold what it should. `hint` is for operators, as an
    error's is; in it `{path}` stands for the file."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint


class Wrong(ValueError):
    """All that is wrong with several fields at once, each sentence behind its field's name."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("; ".join(self.reasons))
