"""The connection that stays open between question and confirmation (mission A12, A13): one where both sides keep it.
Whatever becomes of it meanwhile, the confirmation is said to a server that heard it, and never taken for said.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delegator.device import channel, command, exchange, steps, tls
from delegator.device.addresses import Address

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def confirmations(delegator):
    return [heard.value("Result") for heard in delegator.heard if heard.value("Result")]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("hosted", [True, False])
def test_a12_one_connection_is_enough_for_a_whole_device(lab, say, version, hosted):
    """One TLS handshake; the last question says that it is the last one."""
    issued = say.answer() if hosted else lab.issued(lab.delegate())
    delegator = lab.delegator(issued, say.CONFIRMED, version=version, keeps=5)
    assert lab.run(delegator, "--hook", lab.hook(), "-v")["outcome"] == "ready"
    assert (delegator.connections, len(delegator.heard), confirmations(delegator)) == (1, 2, ["Deployed"])
    assert [heard.headers.get("connection") for heard in delegator.heard] == [None, "close"]
    assert "still connected" in lab.err


def test_chunks_are_an_answer_after_which_a_connection_stays(lab, say):
    body = say.answer().partition(b"\r\n\r\n")[2]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    delegator = lab.delegator(chunked, say.CONFIRMED, keeps=5)
    assert lab.run(delegator)["outcome"] == "ready"
    assert delegator.connections == 1


def test_a13_a_failed_hook_is_told_on_it_and_then_it_is_closed_before_the_device_waits(lab, say):
    delegator = lab.delegator(lambda heard: say.CONFIRMED if heard.value("Result") else say.answer(), keeps=5)
    ended = []
    slept = lab.time._sleep
    lab.time._sleep = lambda seconds: (ended.append((delegator.connections, delegator.ended.wait(3))), slept(seconds))
    lab.run(delegator, "--hook", lab.hook("raise SystemExit(3)"), "--for", "100")
    assert ended == [(1, True)]
    assert confirmations(delegator) == ["Failed"]


def test_it_is_closed_before_the_device_waits_for_its_owners_server(lab, say):
    delegate = lab.delegate()
    delegate.close()
    delegator = lab.delegator(lab.issued(delegate), keeps=5)
    ended = []
    slept = lab.time._sleep
    lab.time._sleep = lambda seconds: (ended.append(delegator.ended.wait(3)), slept(seconds))
    lab.run(delegator, "--for", "100")
    assert ended == [True]


def test_a_device_that_is_done_leaves_nothing_open_and_its_hook_has_nothing_of_it(lab, say):
    """Where nobody confirms: the window is over."""
    note = lab.folder / "note"
    hook = lab.hook("import os\n"
                    "there = [os.readlink(f'/proc/self/fd/{one}') for one in os.listdir('/proc/self/fd')\n"
                    "         if os.path.exists(f'/proc/self/fd/{one}')]\n"
                    f"open({str(note)!r}, 'w').write(' '.join(there))\nraise SystemExit(1)")
    delegator = lab.delegator(say.answer(), say.CONFIRMED, keeps=5)
    lab.run(delegator, "--hook", hook, "--once")
    assert delegator.ended.wait(3)
    assert note.read_text()
    assert "socket:" not in note.read_text()


def test_a_device_that_is_stopped_closes_it(lab, say, monkeypatch):
    kept = []
    keep = exchange.Line.keep
    monkeypatch.setattr(exchange.Line, "keep", lambda line, *more: (kept.append(more[0]), keep(line, *more)))

    def stopped(*_):
        raise command.Stopped(15)
    monkeypatch.setattr(steps.hook, "apply", stopped)
    delegator = lab.delegator(say.answer(), keeps=5)
    assert command.main(lab.words(delegator, "--hook", lab.hook()), lab.time.world()) == 143
    assert [one._socket.fileno() for one in kept] == [-1]
    lab.capsys.readouterr()


def test_it_leads_to_one_peer_and_to_no_other(lab):
    """Nor does it stay open where another one is asked."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = exchange.Line()
        pipe = channel.Channel(ours, ssl.create_default_context(), "localhost", time.monotonic() + 60)
        peer = channel.Peer(Address("localhost", 1), "localhost")
        line.keep(pipe, peer)
        question, limit = exchange.Request("GET", "/", ()), exchange.Limit(1, 1000)
        assert line.again(peer._replace(name="other"), question, limit) is None
        assert ours.fileno() == -1
        theirs.settimeout(5)
        assert theirs.recv(1) == b"", "it said nothing"


def test_whoever_was_given_a_certificate_of_its_own_confirms_with_that(lab, say, monkeypatch):
    """What was said on the old connection would be said by the shared one."""
    monkeypatch.setattr(steps, "_keep", lambda settings, folder, state, answer: (
        folder.save_credential(answer.credential, answer.claim_id), not state.own)[1])
    monkeypatch.setattr("delegator.device.asking.context_for", _plain(lab))
    delegator = lab.delegator(say.answer(), say.CONFIRMED, keeps=5)
    assert lab.run(delegator)["outcome"] == "ready"
    assert delegator.connections == 2


def _plain(lab):
    return lambda _settings, _state: tls.delegator_context(
        lab.pki.device.certificate, lab.pki.device.key, str(lab.pki.factory.file))


# --- it is gone, or as good as gone -------------------------------------------------------------------------------


def test_a12_a_hook_that_takes_longer_than_the_servers_patience_costs_a_second_connection(lab, say):
    delegator = lab.delegator(say.answer(), say.CONFIRMED, keeps=0.2)
    assert lab.run(delegator, "--hook", lab.hook("import time\ntime.sleep(0.6)"))["outcome"] == "ready"
    assert (delegator.connections, confirmations(delegator)) == (2, ["Deployed"])


@pytest.mark.parametrize("how", ["close", "1.0", "no length"])
def test_where_the_server_does_not_keep_it_the_device_does_not_either(lab, say, how):
    head, _, body = say.answer().partition(b"\r\n\r\n")
    answer = {"close": head + b"\r\nConnection: close\r\n\r\n" + body,
              "1.0": head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\nConnection: keep-alive\r\n\r\n" + body,
              "no length": b"HTTP/1.1 200 OK\r\n\r\n" + body}[how]
    delegator = lab.delegator(answer, say.CONFIRMED, keeps=0 if how == "no length" else 5)
    assert lab.run(delegator, "-v")["outcome"] == "ready"
    assert (delegator.connections, confirmations(delegator)) == (2, ["Deployed"])
    assert "connected any more" not in lab.err
    assert "still connected" not in lab.err


def meanwhile(lab, act):
    """What the server does with its connection once, and the hook in whose time it does so: each waits for the other,
    so the answer was read before and nothing was said yet afterwards, however busy the machine is."""
    begun, done = lab.folder / "begun", lab.folder / "done"

    def then(secured):
        if done.exists():
            return
        ends = time.monotonic() + 20
        while not begun.exists() and time.monotonic() < ends:
            time.sleep(0.005)
        act(secured)
        done.touch()
    return then, lab.hook(f"import os, time\nopen({str(begun)!r}, 'w').close()\n"
                          f"while not os.path.exists({str(done)!r}):\n    time.sleep(0.005)")


def cut(secured):
    """As a middlebox does, once the answer has gone by."""
    secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    socket.socket(fileno=socket.dup(secured.fileno())).close()
    secured.close()


def farewell(secured):
    """close_notify, without waiting for the other's."""
    secured.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):
        secured.unwrap()
    secured.settimeout(5)


ENDS = {"half-closed": lambda secured: secured.shutdown(socket.SHUT_WR), "cut": cut, "close_notify": farewell}


@pytest.mark.parametrize("end", ENDS)
def test_a13_a_connection_that_ended_meanwhile_is_not_used(lab, say, end):
    then, hook = meanwhile(lab, ENDS[end])
    delegator = lab.delegator(say.answer(), say.CONFIRMED, keeps=2, then=then)
    assert lab.run(delegator, "--hook", hook, "-v", "--once")["outcome"] == "ready"
    assert (delegator.connections, confirmations(delegator)) == (2, ["Deployed"])
    assert "still connected" not in lab.err


def test_a_connection_that_was_idle_for_long_is_not_used(lab, say, monkeypatch):
    """A device on the way that forgot it would let the question go nowhere."""
    monkeypatch.setattr(exchange, "KEPT", 0.0)
    delegator = lab.delegator(say.answer(), say.CONFIRMED, keeps=5)
    assert lab.run(delegator)["outcome"] == "ready"
    assert delegator.connections == 2


@pytest.mark.parametrize("how", ["hangs up", "hangs", "cut off", "nonsense", "no HTTP"])
def test_a13_a_confirmation_whose_answer_is_lost_is_said_again_on_another_connection(lab, say, how):
    """The server heard it, and hears it again: saying it twice changes nothing there."""
    lost = {"hangs up": None, "hangs": lambda _heard: (time.sleep(1.5), None)[1], "cut off": say.CONFIRMED[:-9],
            "nonsense": say.http("<a/>"), "no HTTP": b"\x00\xff\r\n\r\n"}[how]
    delegator = lab.delegator(say.answer(), lost, say.CONFIRMED, keeps=5)
    facts = lab.run(delegator, "--once", "--timeout", "2")
    assert (facts["outcome"], facts["attempts"]) == ("ready", 1), lab.err
    assert (delegator.connections, confirmations(delegator)) == (2, ["Deployed"] * 2)


def test_a12_a_refusal_on_it_is_an_answer_and_not_asked_for_twice(lab, say):
    delegator = lab.delegator(say.answer(), say.fault("TryLater", 40), say.CONFIRMED, keeps=5)
    facts = lab.run(delegator)
    assert (facts["outcome"], facts["attempts"], lab.time.slept) == ("ready", 2, [50.625])
    assert (delegator.connections, len(confirmations(delegator))) == (2, 2)


def test_where_it_leads_nowhere_the_next_delegator_is_asked(lab, say):
    other = lab.delegator(say.CONFIRMED)
    delegator = lab.delegator(say.answer(), None, keeps=5)
    assert lab.run(f"{delegator.address},{other.address}")["outcome"] == "ready"
    assert (len(confirmations(delegator)), confirmations(other)) == (2, ["Deployed"])


# --- stray bytes --------------------------------------------------------------------------------------------------


def test_what_comes_with_an_answer_and_is_not_of_it_is_never_one(lab, say):
    """A confirmation of what was not said yet."""
    delegator = lab.delegator(say.answer() + say.CONFIRMED, say.CONFIRMED, keeps=5)
    assert lab.run(delegator)["outcome"] == "ready"
    assert (delegator.connections, confirmations(delegator)) == (2, ["Deployed"])


def test_what_comes_later_and_unasked_is_never_an_answer(lab, say):
    then, hook = meanwhile(lab, lambda secured: secured.sendall(say.CONFIRMED))
    delegator = lab.delegator(say.answer(), say.CONFIRMED, keeps=5, then=then)
    assert lab.run(delegator, "--hook", hook, "-v")["outcome"] == "ready"
    assert (delegator.connections, confirmations(delegator)) == (2, ["Deployed"])
    assert "still connected" not in lab.err


def test_an_answer_that_comes_twice_is_not_that_to_the_next_question(lab, say):
    """The same answer once more, when the confirmation has gone out: it confirms nothing."""
    delegator = lab.delegator(say.answer(), say.answer(), say.CONFIRMED, keeps=5)
    assert lab.run(delegator, "--once", "-v")["outcome"] == "ready"
    assert (delegator.connections, confirmations(delegator)) == (2, ["Deployed"] * 2)
    assert "not the answer to this question" in lab.err


@FEW
@given(stray=st.one_of(st.binary(max_size=60), st.sampled_from([
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"\r\n", b"0\r\n\r\n",
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])), sooner=st.booleans())
def test_no_stray_bytes_are_an_answer(lab, say, stray, sooner):
    """Whether they are there before the confirmation is said, or come with the answer to it."""
    delegator = lab.delegator(say.answer() + stray if sooner else say.answer(),
                              say.CONFIRMED if sooner else stray + say.CONFIRMED, say.CONFIRMED, keeps=5)
    facts = lab.run(delegator, "--again", "--once")
    assert facts["outcome"] == "ready", lab.err
    assert set(confirmations(delegator)) == {"Deployed"}


def test_no_more_is_taken_unasked_than_two_session_tickets_need():
    """Whatever is in it: records that carry nothing would otherwise be read for as long as they come."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pipe = channel.Channel(ours, ssl.create_default_context(), "localhost", time.monotonic() + 60)
        taken = threading.Thread(target=lambda: theirs.sendall(b"\x17\x03\x03\x40\x00" * 13_000))
        taken.start()
        time.sleep(0.1)
        assert not pipe.is_silent()
        assert pipe._allowed == 0
        theirs.shutdown(socket.SHUT_RDWR)
        taken.join(5)


def test_check_asks_on_a_connection_of_its_own_and_says_that_it_is_the_last_question(lab, say):
    delegator = lab.delegator(say.http("<definitions/>"), keeps=5)
    assert command.main(["check", *lab.words(delegator)[1:]]) == 0
    assert [heard.headers["connection"] for heard in delegator.heard] == ["close"]
    assert command.main(["status", "--state", str(lab.folder / "nowhere")]) == 3
    assert delegator.connections == 1
    lab.capsys.readouterr()
