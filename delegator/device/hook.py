"""Applying: the one command of the device maker that knows this device.

The invariants: no secret is on its command line or in its environment, only the paths of files that hold one; its
own words go to standard error and never to the delegator; no shell is involved; two of them never run at once, not even
after this client was killed. What a hook leaves running is its own: it is not waited for.
Must not live here: when it is run, what its failure leads to (flow).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from delegator.device import reasons
from delegator.device.contents import opened
from delegator.device.reasons import Failure

log = logging.getLogger("delegator.device")
_STANDARD_ERROR = 2
_PREFIX = "DELEGATOR_"
_DYING = 2.0
"""Seconds that a hook which was ended may take to be gone."""
_NOTE = 64
"""Bytes of the note about a hook that runs."""


class Facts(NamedTuple):
    """What the hook is told. `provisioning` is None where the owner keeps only an account, no server."""

    state: Path
    credential: Path
    provisioning: Path | None
    service_tag: str
    claim_id: str
    delegate_url: str


def environment(facts: Facts) -> dict[str, str]:
    """The hook's variables: paths and names."""
    provisioning = {} if facts.provisioning is None else {
        "DELEGATOR_PROVISIONING_FILE": str(facts.provisioning), "DELEGATOR_DELEGATE_URL": facts.delegate_url}
    return {"DELEGATOR_STATE_DIR": str(facts.state), "DELEGATOR_CREDENTIAL_FILE": str(facts.credential),
            "DELEGATOR_SERVICE_TAG": facts.service_tag, "DELEGATOR_CLAIM_ID": facts.claim_id, **provisioning}


def apply(command: tuple[str, ...], facts: Facts, timeout: float, lock: int) -> None:
    """Runs the hook with the provisioning document on standard input; in the file of the lock stands which process it
    is, as long as it runs. Raises Failure with HOOK_FAILED."""
    process = None
    try:
        with _document(facts) as document, _undisturbed() as before:
            process = subprocess.Popen(command, stdin=document, stdout=_STANDARD_ERROR, start_new_session=True,
                                       env=_whole(environment(facts)),
                                       preexec_fn=partial(_note_itself, lock, before))
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise Failure(reasons.HOOK_FAILED, f"it took longer than {timeout:g} s") from None
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise Failure(reasons.HOOK_FAILED, f"it cannot be started: {reasons.system_words(error)}") from None
    finally:
        if process is not None:
            _end(process)
        _note(lock, "")
    if process.returncode != 0:
        raise Failure(reasons.HOOK_FAILED, f"it ended with {process.returncode}")


@contextlib.contextmanager
def _undisturbed() -> Iterator[Iterable[int]]:
    """A signal that ends the client counts when it knows whom it started, not between: nobody would end the hook.
    Gives what was held back before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_left_over(lock: int) -> None:
    """A hook whose client was killed goes on by itself: it is ended before anything else is done."""
    pid, _, started = os.pread(lock, _NOTE, 0).decode("ascii", "replace").partition(" ")
    if pid.isdecimal() and started and _started(int(pid)) == started:
        log.warning("the hook of an activation that was killed still runs: it is ended")
        with contextlib.suppress(OSError):
            os.killpg(int(pid), signal.SIGKILL)
        ends = time.monotonic() + _DYING
        while _started(int(pid)) == started and time.monotonic() < ends:
            time.sleep(0.02)
    _note(lock, "")


def _note_itself(lock: int, held_back: Iterable[int]) -> None:
    """By the child, before it becomes the hook: its parent may be killed at any moment after it is there. A hook is
    one that signals reach."""
    _note(lock, f"{os.getpid()} {_started(os.getpid())}")
    signal.pthread_sigmask(signal.SIG_SETMASK, held_back)


def _note(lock: int, text: str) -> None:
    """Only for who comes next while this machine runs, so it need not be durable; a full disk stops no hook."""
    with contextlib.suppress(OSError):
        if text or os.fstat(lock).st_size:
            os.ftruncate(lock, 0)
            os.pwrite(lock, text.encode("ascii"), 0)


def _started(pid: int) -> str:
    """When a process began, in ticks of this boot (proc(5), field 22), so that a number used again is told apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        said = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return f"{boot[:13]} {said[19]}" if said[0] != "Z" else ""
    except (OSError, IndexError):
        return ""


def _document(facts: Facts) -> BinaryIO:
    """A file, and no pipe: a service that the hook leaves behind may hold it as long as it likes."""
    return opened(facts.provisioning) if facts.provisioning is not None else Path(os.devnull).open("rb")


def _whole(ours: dict[str, str]) -> dict[str, bytes]:
    """The caller's variables but for those that a hook takes for ours; bytes, as a letter may not fit the locale."""
    callers = {name: os.fsencode(value) for name, value in os.environ.items() if not name.startswith(_PREFIX)}
    return {**callers, **{name: value.encode("utf-8", "surrogateescape") for name, value in ours.items()}}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of a hook that was given up stays behind, also none of its own children."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
