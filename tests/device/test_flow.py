"""The whole way of a device against pretend servers (mission A1, A12, A13): good days, retries, resuming."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
import time

import pytest

from delegator.device import flow, options, reasons
from delegator.device.state import Folder, Phase


def test_a12_the_whole_way_with_a_delegate(lab, say):
    """A12, A13: ask (212), store, fetch with the credential, apply (217, 218), confirm; nothing secret is printed."""
    delegate = lab.delegate()
    delegator = lab.delegator(lab.issued(delegate), say.CONFIRMED)
    note = lab.folder / "note.json"
    hook = lab.hook(f"""
import json, os, sys
given = dict(stdin=sys.stdin.read(), argv=sys.argv[1:], env=dict(os.environ))
given["file"] = open(os.environ["DELEGATOR_PROVISIONING_FILE"]).read()
given["credential"] = json.load(open(os.environ["DELEGATOR_CREDENTIAL_FILE"]))
json.dump(given, open({str(note)!r}, "w"))
print("words of the hook")
""")
    facts = lab.run(delegator, "--hook", hook + " 'two words'", "--serial", "S-1", "--mac", "02:00:00:00:00:01",
                    "--mac", "02-00-00-00-00-02", "--model", "R<750>", "--ip", "192.0.2.7", "--host-name", "n1",
                    "--domain", "example.org", "-v")
    assert (facts["outcome"], facts["exit_code"], facts["attempts"]) == ("ready", 0, 1)
    assert (facts["claim_id"], facts["phase"]) == (say.CLAIM, "confirmed")
    asked, confirmed = delegator.heard
    assert (asked.method, asked.target, asked.client_certificate) == ("POST", "/", True)
    assert asked.headers["content-type"] == "text/xml; charset=utf-8"
    assert asked.headers["soapaction"] == f'"{say.NS}#GetProvisioningCredential"'
    assert asked.headers["host"] == delegator.address
    assert "<Model>R&lt;750&gt;</Model>" in asked.body
    assert asked.body.count("<MacAddress>") == 2
    assert "<Location><IPAddress>192.0.2.7</IPAddress><HostName>n1</HostName><Domain>example.org<" in asked.body
    assert asked.value("TransactionId") == confirmed.value("TransactionId") == lab.saved()["transaction_id"]
    assert (confirmed.value("ClaimId"), confirmed.value("Result")) == (say.CLAIM, "Deployed")
    assert confirmed.headers["soapaction"] == f'"{say.NS}#ConfirmProvisioning"'
    (fetched,) = delegate.heard
    assert (fetched.method, fetched.target) == ("GET", f"/provisioning?tag={say.TAG}")
    assert fetched.headers["authorization"] == say.basic("root", say.PASSWORD)
    given = json.loads(note.read_text())
    assert given["stdin"] == given["file"] == say.DATA.decode()
    assert given["argv"] == ["two words"]
    assert given["credential"]["password"] == say.PASSWORD
    assert say.PASSWORD not in json.dumps(given["env"])
    assert given["env"]["DELEGATOR_CLAIM_ID"] == say.CLAIM
    for block in ("203", "211", "212", "216", "217", "218"):
        assert f" {block} " in lab.err


def test_a12_the_factory_key_is_never_shown_to_the_delegate(lab, say):
    """The delegate asks for a client certificate and gets none: that key stays between device and maker."""
    context = say.server_context(lab.pki.delegate)
    context.load_verify_locations(lab.pki.factory.file)
    context.verify_mode = 1  # optional
    delegate = lab.serve(context, say.http(say.DATA))
    lab.run(lab.delegator(lab.issued(delegate), say.CONFIRMED))
    assert not delegate.heard[0].client_certificate


def test_a12_hosted_credential_without_a_delegate(lab, say):
    """No Delegate in the answer: the account alone goes through the hook and is confirmed."""
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    hook = lab.hook("import os, sys\nassert not sys.stdin.read() and 'DELEGATOR_PROVISIONING_FILE' not in os.environ")
    facts = lab.run(delegator, "--hook", hook)
    assert (facts["outcome"], facts["delegate_url"], facts["provisioning_file"]) == ("ready", None, None)
    assert not (lab.state / "delegate-ca.pem").exists()


def test_a12_files_are_private(lab, say):
    """0700 folder, 0600 files, none left half written."""
    lab.run(lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED))
    assert stat.S_IMODE(lab.state.stat().st_mode) == 0o700
    names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in lab.state.iterdir()}
    assert names == dict.fromkeys(
        ["state.json", "credential.json", "delegate-ca.pem", "provisioning.xml", "lock"], 0o600)


def test_a12_a_ready_device_says_so_and_asks_nobody(lab, say):
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    lab.run(delegator)
    first = lab.saved()["transaction_id"]
    facts = lab.run("localhost:1")
    assert (facts["outcome"], facts["exit_code"], facts["attempts"]) == ("already-ready", 0, 0)
    delegator.script[:] = [say.answer(), say.CONFIRMED]
    assert lab.run(delegator, "--again")["outcome"] == "ready"
    assert lab.saved()["transaction_id"] != first


def test_a12_retries_every_90_seconds_for_24_hours_and_then_stops(lab):
    """Back to block 202 at every failure; the mean pause is the interval, the window is never overrun."""
    settings = options.settings(options.parser().parse_args(lab.words("localhost:1")))
    assert (settings.interval, settings.window) == (90, 24 * 3600)
    facts = lab.run("localhost:1", "--interval", "900")
    assert (facts["outcome"], facts["reason"], facts["exit_code"]) == ("failed", "nothing-listening", 23)
    assert facts["attempts"] == 97
    assert set(lab.time.slept) == {900.0}
    assert sum(lab.time.slept) == 24 * 3600
    assert "next attempt in 900 s" in lab.err


def test_a12_retry_after_is_obeyed(lab, say):
    """The fault's own number, the header's where there is none, the interval where there is neither."""
    busy = say.fault("TryLater", 40)
    header, date = (say.fault("TryLater").replace(b"Content-Type", b"Retry-After: %b\r\nContent-Type" % value)
                    for value in (b"20", b"Fri, 31 Dec 1999 23:59:59 GMT"))
    delegator = lab.delegator(busy, header, date, say.fault("NotEntitled"), say.answer(), say.CONFIRMED)
    facts = lab.run(delegator)
    assert (facts["outcome"], facts["attempts"]) == ("ready", 5)
    assert lab.time.slept == [50.625, 50.625, 90.0, 90.0]
    assert len({heard.value("TransactionId") for heard in delegator.heard}) == 1


def test_a12_a_malformed_request_stops_no_device_for_good(lab, say):
    """A delegator that is mended meanwhile is asked again, and another one at once."""
    delegator = lab.delegator(say.fault("MalformedRequest"), say.answer(), say.CONFIRMED)
    assert lab.run(delegator)["outcome"] == "ready"
    assert lab.time.slept == [90.0]


def test_a12_the_next_address_of_the_list_is_tried(lab, say):
    """The list's order; a fault that only waiting can cure does not go round the list."""
    good = lab.delegator(say.answer(), say.CONFIRMED)
    assert lab.run(f"localhost:1,{good.address}", "--once")["outcome"] == "ready"
    never = lab.delegator(say.answer())
    facts = lab.fails(f"{lab.delegator(say.fault('NotEntitled')).address},{never.address}", "not-entitled", "--again")
    assert facts["exit_code"] == 35
    assert never.connections == 0


def test_the_failure_that_got_furthest_is_reported(lab, say):
    lab.fails(f"{lab.delegator(say.fault('Unavailable')).address},localhost:1", "unavailable")


def test_a10_the_delegator_that_answered_is_kept_before_the_ones_it_names(lab, say):
    """The one that knows the claim is told first how it ended; then the others."""
    second = lab.delegator(say.CONFIRMED)
    more = f"<AlternateDelegator>{second.address}</AlternateDelegator>"
    first = lab.delegator(say.answer(more=more), None)
    assert lab.run(first)["outcome"] == "ready"
    assert second.heard[0].value("Result") == "Deployed"
    assert lab.saved()["alternates"] == [["localhost", first.port], ["localhost", second.port]]


def test_a13_a_failed_hook_is_told_without_secrets_and_starts_over(lab, say):
    """A13: Failed with a detail, and the data are fetched again, since the owner may have mended them; the maker is not
    asked again for what is on the disk. Then Deployed, with the same transaction id."""
    delegate = lab.delegate()
    issued = lab.issued(delegate)
    delegator = lab.delegator(issued, say.CONFIRMED, say.CONFIRMED)
    mark = lab.folder / "mark"
    hook = lab.hook(f"import os, sys\nif not os.path.exists({str(mark)!r}):\n"
                    f"    open({str(mark)!r}, 'w')\n    print({say.PASSWORD[:-4]!r})\n    sys.exit(3)\n")
    facts = lab.run(delegator, "--hook", hook)
    assert (facts["outcome"], facts["attempts"], len(delegate.heard)) == ("ready", 2, 2)
    assert [h.value("Result") for h in delegator.heard] == [None, "Failed", "Deployed"]
    assert "ended with 3" in delegator.heard[1].value("Detail")
    assert len({h.value("TransactionId") for h in delegator.heard}) == 1


def test_a13_a_lost_confirmation_is_only_confirmed_again(lab, say):
    """The hook does not run twice because an answer got lost."""
    delegator = lab.delegator(say.answer(), None, say.CONFIRMED)
    runs = lab.folder / "runs"
    facts = lab.run(delegator, "--hook", lab.hook(f"open({str(runs)!r}, 'a').write('x')"))
    assert (facts["outcome"], facts["attempts"], runs.read_text()) == ("ready", 2, "x")
    assert [h.value("Result") for h in delegator.heard] == [None, "Deployed", "Deployed"]


def test_a13_a_claim_that_is_gone_starts_over(lab, say):
    delegator = lab.delegator(say.answer(), say.fault("NotEntitled"), say.answer(), say.CONFIRMED)
    assert lab.run(delegator)["outcome"] == "ready"
    assert [h.value("Result") for h in delegator.heard] == [None, "Deployed", None, "Deployed"]


@pytest.mark.parametrize(("phase", "reason", "asked_ago", "after"), [
    (Phase.ASKING, reasons.NO_ROUTE, None, Phase.ASKING), (Phase.ASKING, reasons.NO_ROUTE, 1.0, Phase.ASKING),
    (Phase.ISSUED, reasons.DELEGATE_FAILED, 1.0, Phase.ISSUED), (Phase.FETCHED, reasons.HOOK_FAILED, 1.0, Phase.ISSUED),
    (Phase.ISSUED, reasons.OWN_TROUBLE, 1.0, Phase.ISSUED), (Phase.ISSUED, reasons.OWN_TROUBLE, None, Phase.ASKING),
    (Phase.ISSUED, reasons.DELEGATE_FAILED, None, Phase.ASKING),
    (Phase.FETCHED, reasons.HOOK_FAILED, flow.ANEW, Phase.ASKING),
    (Phase.ISSUED, reasons.UNUSABLE_CREDENTIAL, 1.0, Phase.ASKING),
    (Phase.ISSUED, reasons.DELEGATE_NOT_TRUSTED, 1.0, Phase.ASKING),
    (Phase.FETCHED, reasons.NO_CREDENTIAL, 1.0, Phase.ASKING),
    (Phase.APPLIED, reasons.NO_ROUTE, None, Phase.APPLIED),
    (Phase.APPLIED, reasons.TRY_LATER, flow.ANEW, Phase.APPLIED),
    (Phase.APPLIED, reasons.NOT_ENTITLED, 1.0, Phase.ASKING),
    (Phase.APPLIED, reasons.IDENTITY_REJECTED, 1.0, Phase.ASKING),
])
def test_where_a_failure_leads(phase, reason, asked_ago, after):
    """Back to the start (block 202), but for what is on the disk already and was not found wanting."""
    assert flow.phase_after_failure(phase, reason, asked_ago) is after


def test_another_tag_is_another_activation(tmp_path, caplog):
    """A copied disk does not claim in the name of the device it came from."""
    folder = Folder(tmp_path / "state")
    first = flow.resume(folder, "AAA1111", False, 1.0)
    assert flow.resume(folder, "AAA1111", False, 2.0) == first
    assert not caplog.records
    assert flow.resume(folder, "BBB2222", False, 3.0).transaction_id != first.transaction_id
    assert "was that of AAA1111, not of BBB2222" in caplog.text


def test_a_certificate_request_that_is_none(lab, say):
    words = ("--certificate-request", lab.hook("\u00e9"), "--request-key", lab.pki.device.key)
    shared = lab.pki.factory.leaf("shared-device")
    assert lab.run(lab.delegator(say.answer()), *words, leaf=shared)["exit_code"] == 3


# --- power cuts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["asking", "fetching", "applying", "confirming"])
def test_a12_a_power_cut_resumes_with_the_same_transaction_id(lab, say, moment):
    """A12: kill -9 while the device waits in each step; the next start goes on, with the same id and claim."""
    reached, release = threading.Event(), threading.Event()
    mark = lab.folder / "mark"
    hook = lab.hook(f"import os, time\nif not os.path.exists({str(mark)!r}):\n"
                    f"    open({str(mark)!r}, 'w')\n" + ("    time.sleep(60)\n" if moment == "applying" else ""))

    def held(step, reply):
        def replies(_heard):
            if step == moment and not reached.is_set():
                reached.set()
                release.wait(20)
            return reply
        return replies

    delegate = lab.delegate(held("fetching", say.http(say.DATA)))
    issued = held("asking", lab.issued(delegate))
    delegator = lab.delegator(lambda h: (issued if "<Device>" in h.body else held("confirming", say.CONFIRMED))(h))
    with lab.start(delegator, "--hook", hook) as process:
        until(lambda: mark.exists() if moment == "applying" else reached.is_set())
        process.send_signal(signal.SIGKILL)
    release.set()
    before = lab.saved()
    assert before["phase"] == {"asking": "asking", "fetching": "issued", "applying": "fetched",
                               "confirming": "applied"}[moment]
    facts = lab.run(delegator, "--hook", hook)
    assert facts["outcome"] == "ready"
    assert lab.saved()["transaction_id"] == before["transaction_id"]
    assert {h.value("TransactionId") for h in delegator.heard} == {before["transaction_id"]}
    assert sum("<Device>" in h.body for h in delegator.heard) == (2 if moment == "asking" else 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_cleanly_also_inside_the_hook(lab, say, number, code):
    """Exit code 128 + signal, a sentence, and nothing of the hook left behind."""
    pid = lab.folder / "pid"
    hook = lab.hook(f"import os, time\nopen({str(pid)!r} + '.new', 'w').write(str(os.getpid()))\n"
                    f"os.rename({str(pid)!r} + '.new', {str(pid)!r})\ntime.sleep(60)\n")
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    with lab.start(delegator, "--hook", hook) as process:
        until(pid.exists)
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert json.loads(out)["outcome"] == "stopped"
    assert "stopped" in err
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert lab.saved()["phase"] == "fetched"


def test_a_second_activation_is_kept_out(lab, say):
    """Exit code 6; the lock is the process's, so a killed one leaves none behind."""
    folder = Folder(lab.state)
    with folder.held():
        facts = lab.run(lab.delegator(say.answer()))
    assert facts["exit_code"] == 6
    with folder.held():
        pass


def until(done, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.005)
