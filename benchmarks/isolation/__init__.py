"""Isolation: one hostile peer of each kind, and what other customers' devices notice of it. `make isolation`.

Each mode (`modes`) is something that one peer does which it must not: a customer's SOAP or SSH delegate, a receiver of
webhooks, the mail relay, a name server, a device, a stranger, a load balancer, a caller of the operators' port, and a
stranger at the reference delegate. Each is run with 1 and with 16 calls at a time, on asyncio's loop and on uvloop,
against a real `delegator serve` (`workers = 1`, SQLite on disk). All the while devices of another customer come at a
steady rate, each with a full handshake and a durable claim of its own.

**The control** follows each mode in the same run: the peer behaves well, as many calls are made to it as there were,
and a program outside the delegator burns as much CPU as the attacker did. What is then dearer is not the machine's,
but the mode's.

**CPU a handshake** is all CPU of all processes of the server in the window, divided by everything it was made to
answer in it: the other customers' devices and the attacker's calls. The control has as many of both, so the quotient
of the two says what one call is dearer when its peer is hostile. Nothing is taken off.

The limits (`judged`): other customers' devices p99 250 ms, CPU a handshake 1.5 times the control's, none fails, a call
ends within a second after its budget, 32 MiB more of resident memory in all processes.

The invariant of the package: only processes that it started are touched, everything stays on the loopback address,
and every process ends with the run.
"""
