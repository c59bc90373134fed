"""Whether devices are being served, seen by what they were told: whatever the cause, and whoever thought of it.

The last answer to each registered device of the last 60 seconds is kept. When more than half of at least 20 devices
were told `Unavailable` or `TryLater`, or were refused at the handshake with a certificate of ours, that is told: since
when, and what most were told. A device counts that proved its tag, and whose own registration says whose it is.
The invariants: strangers and devices that nobody registered count for nothing; what one customer's devices are told
never speaks for the others', see `judge`; memory is bounded; nothing here is waited for by a device.
Must not live here: looking up whose a device is (view), the port (ops), adding up workers (serving.workers).
"""

from __future__ import annotations

import enum
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from delegator.errors import CROWDED
from delegator.model import IdentityKind
from delegator.trail import CALLBACK_FAILED, Step, Trail
from pki.trust import Refusal

WINDOW, RECENT = 60.0, 10.0
"""Seconds that are looked back; and those in which as many devices are enough to say that they are served again."""
PATIENCE = 30.0
"""Seconds that a device waits for its answer; whatever comes later, or never, is none."""
ENOUGH = 20
"""Different devices below which nothing is said."""
OTHERS = 5
"""Devices besides those of one customer that must have been told so, too: one that waits for its delegate is none."""
MOST = 2_048
"""Devices remembered, the last ones: 0.5 MB. Where more than 34 a second ask, the window is shorter than WINDOW."""
UNKNOWN = ""
"""Whose a device is that could not be looked up, as the store tells nothing."""


class Told(enum.IntEnum):
    """What a device was told; a number, which workers of one release tell their parent."""

    SERVED = 0
    DELEGATE = 1
    LIMITED = 2
    BUSY = 3
    HELD_UP = 4
    UNAVAILABLE = 5
    EXPIRED = 6
    EARLY = 7
    LISTED = 8
    REVOKED = 9
    REFUSED = 10
    FOREIGN = 11
    LATE = 12
    CROWDED = 13


WORDS = {
    Told.SERVED: "an answer",
    Told.DELEGATE: "TryLater, as their delegates gave no credential",
    Told.LIMITED: "TryLater, by a limit of their policies",
    Told.BUSY: "TryLater, as their delegates are still being asked",
    Told.CROWDED: "TryLater, as too many of one owner's come at once",
    Told.HELD_UP: "TryLater, as the store or this delegator is held up",
    Told.UNAVAILABLE: "Unavailable, as the store takes nothing, or by a fault of ours",
    Told.EXPIRED: "nothing: their certificates count as expired",
    Told.EARLY: "nothing: their certificates count as not yet valid",
    Told.LISTED: "nothing: the revocation list is out of date",
    Told.REVOKED: "nothing: their certificates count as revoked",
    Told.REFUSED: "nothing: their certificates are refused",
    Told.LATE: "nothing within 30 s, after which they leave",
    Told.FOREIGN: "nothing: who signed their certificates is not among the anchors any more",
}
OURS = frozenset((Told.HELD_UP, Told.UNAVAILABLE, Told.EARLY, Told.LISTED, Told.LATE))
"""What no customer and no device can bring about: it speaks for all, also while one customer's devices alone ask."""
BETTER_ELSEWHERE = (Told.EARLY, Told.LISTED)
"""What depends on this machine's clock and files alone: another instance would do better, so it is no more ready."""
_OWN, _SHARED = IdentityKind.OWN.value, IdentityKind.SHARED.value
_OF_REFUSAL = {Refusal.EXPIRED.value: Told.EXPIRED, Refusal.NOT_YET_VALID.value: Told.EARLY,
               Refusal.CRL_STALE.value: Told.LISTED, Refusal.REVOKED.value: Told.REVOKED}
_OF_CLAIM = {"being answered": Told.BUSY, "over a limit": Told.LIMITED}
"""By the words of store.Outcome."""
_AT_A_DELEGATE = ("opened", "resumed after a broken try")
"""The same: from then on a delegate is asked."""
_UNPROVEN = {Refusal.EXPIRED.value: Told.EXPIRED, Refusal.NOT_YET_VALID.value: Told.EARLY}
"""Refusals by the times of an anchor, before OpenSSL looks at a device's own signature; any other one that comes so
early is of a chain that leads to no anchor."""
LARGEST = 8_192
"""Bytes of such a certificate; a device's has 500."""
SUSPECTS = 100
"""Certificates refused so in LOOK seconds whose signatures are looked at afterwards, at some 100 µs each."""
_NAME = re.compile(r"(?:^|,)CN=([A-Za-z0-9-]{1,64})(?=,|$)")


class Answer(NamedTuple):
    """The last answer to a device: when (monotonic seconds), what, and whose device it is; None while unknown."""

    at: float
    told: Told
    customer: str | None


def told_of(trail: Trail) -> Told | None:
    """What the device of a finished trail was told; None where it does not count, or proved nothing."""
    said = trail.facts
    outcome = said.get("outcome")
    if outcome == "Answered":
        return Told.SERVED if "identity" in said else None
    if outcome == "TlsRefused":
        return _OF_REFUSAL.get(said["refusal"], Told.REFUSED) if trail.genuine else None
    if "identity" not in said:
        return None
    if outcome == "Unavailable":
        return Told.UNAVAILABLE
    if outcome == "TryLater":
        return _later(trail)
    return Told.SERVED if said["identity"] == _OWN else None  # a no that is meant: as it should be


def _later(trail: Trail) -> Told:
    """By its reason, else by what its last steps led to."""
    if trail.reasons and trail.reasons[0].startswith(CALLBACK_FAILED):
        return Told.DELEGATE
    if trail.reasons and trail.reasons[0].startswith(CROWDED):
        return Told.CROWDED
    for mark in trail.marks:
        if mark.step is Step.DECIDED and mark.note.endswith("refuses"):
            return Told.LIMITED
        if mark.step is Step.CLAIMED:
            return _OF_CLAIM.get(mark.note, Told.HELD_UP)
    return Told.HELD_UP


def tag_of(trail: Trail) -> str | None:
    """The tag that was proved, by the request or by the certificate that TLS refused."""
    if not trail.genuine:
        return trail.facts.get("tag")
    names = _NAME.findall(trail.facts.get("certificate", ""))
    return names[0] if len(names) == 1 else None


class Answers:
    """The last answers of one process."""

    def __init__(self) -> None:
        self._last: dict[str, Answer] = {}
        self._why: dict[Told, str] = {}
        self._under_way: dict[int, tuple[float, Trail]] = {}
        self._suspects: list[tuple[float, Told, bytes]] = []

    def begun(self, trail: Trail, now: float) -> None:
        """A request is being answered from now on, until its trail is noted."""
        self._under_way[id(trail)] = now, trail

    def note(self, trail: Trail) -> None:
        """Look at a finished trail. Some hundred nanoseconds."""
        told, tag = told_of(trail), tag_of(trail)
        begun, _ = self._under_way.pop(id(trail), (None, None))
        if begun is not None and told is Told.SERVED and trail.marks[-1].at / 1e9 > begun + PATIENCE:
            told = _late(trail)
        if 0 < len(trail.shown) < LARGEST and len(self._suspects) < SUSPECTS:
            self._suspects.append((trail.marks[-1].at / 1e9, _UNPROVEN.get(trail.facts["refusal"], Told.FOREIGN),
                                   trail.shown))
        if told is None or tag is None:
            return
        before = self._last.pop(tag, None)  # so that the longest silent one is the first
        known = _customer(trail, before)
        if known is None and (told is Told.SERVED or trail.facts.get("identity") == _SHARED):
            return  # nobody registered it, or it only says who it is
        if told is not Told.SERVED:
            self._why[told] = "; ".join(trail.reasons)
        self._last[tag] = Answer(trail.marks[-1].at / 1e9, told, known)
        if len(self._last) > MOST:
            del self._last[next(iter(self._last))]

    def wait_no_longer(self, now: float) -> None:
        """Devices whose answers are under way for longer than they wait were told nothing. The oldest come first."""
        for begun, trail in self._under_way.values():
            if begun > now - PATIENCE:
                break
            tag = trail.facts.get("tag")
            if tag is not None and trail.facts.get("identity") == _OWN:
                self._last[tag] = Answer(now, _late(trail), _customer(trail, self._last.pop(tag, None)))

    def prove(self, name_in: Callable[[bytes, bool], str | None]) -> None:
        """Look at certificates that TLS refused before it knew who signed them. `name_in` gives the one name in one
        that is ours: of an authority that counts, or with True of one that did before."""
        suspects, self._suspects = self._suspects, []
        for at, told, shown in suspects:
            tag = name_in(shown, told is Told.FOREIGN)
            if tag is not None:
                self._last.pop(tag, None)
                self._last[tag] = Answer(at, told, None)

    def unknown(self, most: int) -> list[str]:
        """Tags of which nobody has looked up yet whose they are, the latest first."""
        found = [tag for tag, answer in reversed(self._last.items()) if answer.customer is None]
        return found[:most]

    def learn(self, whose: Mapping[str, str | None], forget: bool = True) -> None:
        """Whose these are: a customer's, nobody's (None, which forgets them), UNKNOWN where nobody could say."""
        for tag, customer in whose.items():
            answer = self._last.get(tag)
            if answer is not None and customer is None and forget:
                del self._last[tag]
            elif answer is not None:
                self._last[tag] = answer._replace(customer=customer)

    def ask_again(self) -> None:
        """What could not be looked up can be, now."""
        self.learn({tag: None for tag, answer in self._last.items() if answer.customer == UNKNOWN}, forget=False)

    def seen(self, now: float) -> dict[int, Answer]:
        """The answers of the window whose device is known, by a number for its tag; older ones are forgotten."""
        while self._last and next(iter(self._last.values())).at <= now - WINDOW:
            del self._last[next(iter(self._last))]
        return {zlib.crc32(tag.encode()): answer for tag, answer in self._last.items() if answer.customer is not None}

    def as_list(self, now: float) -> list[tuple[int, float, int, str | None]]:
        """The same as JSON has it, for another process of this machine: its monotonic clock is the same."""
        return [(number, one.at, int(one.told), one.customer) for number, one in self.seen(now).items()]

    def why(self) -> dict[int, str]:
        """What stood behind the last answer of each kind, for the log alone: it may name a device."""
        return {int(told): words for told, words in self._why.items()}


def _late(trail: Trail) -> Told:
    """Of an answer that took too long: by the customer's delegates, where some gave nothing or are being waited for."""
    waits = bool(trail.marks) and trail.marks[-1].step is Step.CLAIMED and trail.marks[-1].note in _AT_A_DELEGATE
    return Told.DELEGATE if waits or trail.unanswered else Told.LATE


def _customer(trail: Trail, before: Answer | None) -> str | None:
    return trail.facts["customer"] if trail.registered else before and before.customer


def as_answers(said: Iterable[Sequence[Any]]) -> dict[int, Answer]:
    """What `as_list` gave, out of JSON."""
    return {number: Answer(at, Told(told), customer) for number, at, told, customer in said}


def together(all_of: Iterable[Mapping[int, Answer]]) -> list[Answer]:
    """The answers of several processes: of a device that asked at more than one, the last."""
    last: dict[int, Answer] = {}
    for answers in all_of:
        for number, answer in answers.items():
            if number not in last or last[number].at < answer.at:
                last[number] = answer
    return list(last.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether devices are served: `most` is what most of those were told that are not, None where they are served;
    `several` says that no customer's devices alone make it so; `unserved` are customers, with what their devices were
    told."""

    devices: int = 0
    unserved_devices: int = 0
    most: Told | None = None
    several: bool = False
    unserved: Mapping[str, Told] = field(default_factory=dict)

    @property
    def serving(self) -> bool:
        return self.most is None

    def words(self) -> str:
        assert self.most is not None
        return f"of {self.devices} devices in a minute {self.unserved_devices} were not served; most were told " \
               f"{WORDS[self.most]}"


def judge(answers: Iterable[Answer], now: float) -> Verdict:
    """Whether devices are served. More than half of enough devices were not: that counts where more than one customer's
    devices are not, or where the cause is ours alone and nobody else is served either."""
    by: dict[str, Counter[Told]] = {}
    for answer in answers:
        if answer.at > now - WINDOW and answer.customer is not None:
            by.setdefault(answer.customer, Counter())[answer.told] += 1
    unserved = {customer: worst for customer, told in by.items()
                if customer and told.total() >= ENOUGH and (worst := _worst(told)) is not None}
    whole: Counter[Told] = Counter()
    for told in by.values():
        whole.update(told)
    most = _worst(whole)
    if whole.total() < ENOUGH or most is None:
        return Verdict(whole.total(), _bad(whole), unserved=unserved)
    loudest = max(by, key=lambda customer: _margin(by[customer]))
    rest = whole - by[loudest]
    others = _bad(rest) if _margin(rest) > 0 else sum(
        _bad(told) for customer, told in by.items() if customer != loudest and _margin(told) > 0)
    several = others >= OTHERS
    ours = sum(count for told, count in whole.items() if told in OURS) * 2 > whole.total()
    if several or (ours and _margin(rest) >= 0):
        return Verdict(whole.total(), _bad(whole), most, several, unserved)
    return Verdict(whole.total(), _bad(whole), unserved=unserved)


def _bad(told: Counter[Told]) -> int:
    return told.total() - told[Told.SERVED]


def _margin(told: Counter[Told]) -> int:
    """By how many more were not served than were."""
    return _bad(told) * 2 - told.total()


def _worst(told: Counter[Told]) -> Told | None:
    """What most of them were told, where more than half were not served."""
    if _margin(told) <= 0:
        return None
    return max((one for one in told if one is not Told.SERVED), key=lambda one: told[one])


class Teller:
    """Says when devices are not served any more, and when they are again. Nothing is said twice."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self._since: dict[str, tuple[float, str]] = {}

    def look(self, seen: Sequence[Answer], now: float, why: Mapping[int, str]) -> list[str]:
        """Judge, and what is to be said of it in the log."""
        verdict = judge(seen, now)
        if not (self.verdict.serving or verdict.serving) and _again(seen, now):
            verdict = Verdict(verdict.devices, verdict.unserved_devices)
        self.verdict = verdict
        wrong = {f"devices of customer {customer}": f"most were told {WORDS[told]}{_because(why.get(told))}"
                 for customer, told in verdict.unserved.items()} if verdict.serving else {}
        if verdict.most is not None:
            wrong["devices"] = verdict.words() + _because(why.get(verdict.most))
        return self._changes(wrong, now, seen)

    def _changes(self, wrong: Mapping[str, str], now: float, seen: Sequence[Answer]) -> list[str]:
        lines = []
        for who in self._since.keys() - wrong.keys():
            since, _ = self._since.pop(who)
            if "devices" not in wrong:  # else it is said of all of them now
                over = "are served again" if _asked(who, seen, now) >= ENOUGH else \
                    f"are fewer than {ENOUGH} in a minute now, too few to tell whether they are served"
                lines.append(f"{who} {over}, after {lasted(now - since)}")
        for who, words in wrong.items():
            since, said = self._since.get(who, (now, ""))
            kind = words.partition("; because: ")[0].partition("most were told ")[2]
            if kind != said:
                lines.append(f"{who} are not being served{'' if not said else f', for {lasted(now - since)}'}: {words}")
            self._since[who] = since, kind
        return lines

    def unserved(self, now: float) -> dict[str, str]:
        """The same words for whoever asks how we are, without any device in them."""
        found = {who: f"not being served for {lasted(now - since)}: most were told {kind}"
                 for who, (since, kind) in self._since.items()}
        if self.verdict.most is not None and "devices" in found:
            found["devices"] = f"not being served for {lasted(now - self._since['devices'][0])}: {self.verdict.words()}"
        return found

    def wrong(self, now: float) -> dict[str, str]:
        """What another instance would do better: nothing that one customer's devices were told."""
        if self.verdict.most not in BETTER_ELSEWHERE or not self.verdict.several:
            return {}
        return {"serving": f"{self.unserved(now).get('devices', self.verdict.words())}; next: look at the clock and at "
                           "the revocation lists"}


def _again(seen: Iterable[Answer], now: float) -> bool:
    """Whether enough devices were served lately, whatever those were told that have not come back yet."""
    lately = Counter(answer.told for answer in seen if answer.at > now - RECENT and answer.customer is not None)
    return lately.total() >= ENOUGH and _worst(lately) is None


def _asked(who: str, seen: Iterable[Answer], now: float) -> int:
    """How many of whoever a line is about asked in the window."""
    return sum(one.at > now - WINDOW and who in ("devices", f"devices of customer {one.customer}") for one in seen)


def _because(why: str | None) -> str:
    return f"; because: {why[:300]}" if why else ""


def lasted(seconds: float) -> str:
    """A time in words: 2 min 10 s."""
    whole = round(seconds)
    minutes = f"{whole // 60} min " if whole >= 60 else ""
    return f"{minutes}{whole % 60} s"
