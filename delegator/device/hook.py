"""Applying: the one command of the device maker that knows this device.

The invariant: no secret is on its command line or in its environment, only the paths of files that hold one; its
own words go to standard error and never to the delegator. No shell is involved.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

from delegator.device import reasons
from delegator.device.reasons import Failure

_STANDARD_ERROR = 2


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


def apply(command: tuple[str, ...], facts: Facts, timeout: float) -> None:
    """Runs the hook with the provisioning document on standard input. Raises Failure with HOOK_FAILED."""
    try:
        document = b"" if facts.provisioning is None else facts.provisioning.read_bytes()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=_STANDARD_ERROR, start_new_session=True,
                                   env={**os.environ, **environment(facts)})
    except OSError as error:
        raise Failure(reasons.HOOK_FAILED, f"it cannot be started: {error.strerror}") from None
    with process:
        try:
            process.communicate(document, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failure(reasons.HOOK_FAILED, f"it took longer than {timeout:g} s") from None
        finally:
            _end(process)
    if process.returncode != 0:
        raise Failure(reasons.HOOK_FAILED, f"it ended with {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of a hook that was given up stays behind, also none of its own children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
