"""The order of a demonstration: set the scene, start, register, activate, tell, and go on serving if asked.

Must not live here: any of these steps.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from delegator.demo import show
from delegator.demo.cast import ACTS, waiting
from delegator.demo.stage import Stage, held, prepare
from delegator.demo.world import Listening, register, servers
from pki import signals


class Ended(BaseException):
    """SIGTERM or Ctrl-C: leaves through every `with`, so that nothing stays behind. A second one changes nothing."""


def play(root: Path, port: int, more: int, *, keep: bool, as_json: bool) -> int:
    """Run the demonstration; the exit code. Ctrl-C and SIGTERM end it and everything it started."""
    try:
        with signals.first(Ended()), held(root) as stage:
            return _play(stage, port, more, keep, as_json)
    except Ended:
        print("ended.", file=sys.stderr)
        return 0


def _play(stage: Stage, port: int, more: int, keep: bool, as_json: bool) -> int:
    def say(text: str) -> None:
        print(text, file=sys.stderr if as_json else sys.stdout, flush=True)

    extra = waiting(more)
    print("minting certificates, starting the servers ...", file=sys.stderr, flush=True)
    prepare(stage, ACTS + extra, port)
    with servers(stage) as (delegator, delegate):
        asyncio.run(register(stage, ACTS + extra, delegate.port))
        if as_json:
            print(json.dumps(show.scene(stage, extra, delegator, delegate)), flush=True)
        show.introduction(say, stage, delegator, delegate)
        good = [show.act(say, stage, part, number, delegator) for number, part in enumerate(ACTS, 1)]
        say("\nEach customer's device now trusts its own customer's server, and nobody else's device does.")
        if keep:
            say("\nTry it by hand as a device that is still in its box; ask twice, the answer is the same:\n")
            say(f"  {show.curl(stage, extra[0], delegator)}\n")
            say("Ctrl-C ends everything.")
            _wait(delegator, delegate)
        else:
            say("Go on by hand with: make demo ARGS=--keep")
    return 0 if all(good) else 1


def _wait(*running: Listening) -> None:
    """Until a signal, or until a server ends by itself."""
    while all(one.process.poll() is None for one in running):
        signal.sigtimedwait((), 1.0)
