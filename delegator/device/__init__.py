"""The device client: what runs inside a device at first power-on and fetches its owner's settings.

Standard library only, and nothing else from this project: this folder is packed alone into one file
(`make device`) and runs on Python 3.9 and later. Therefore values are named tuples: frozen and without
`__dict__` like the slotted dataclasses elsewhere, and known to every Python that a device may still have.

Rooms, lowest first: addresses | reasons | built, contents, certificate, messages | replacing, document, envelope,
answers, retry | tls, settings, state, status | channel, hook, enrolling | exchange | asking, fetching, checking |
steps | flow | options, command. Bytes and decisions do not touch a socket, a file or a clock.
"""

import sys

if sys.version_info < (3, 9):  # noqa: UP036 - written so that any Python can read it
    sys.stderr.write("delegator device: this needs Python 3.9 or later, and this is Python %d.%d; start it with a "  # noqa: UP031
                     "newer one, such as: python3.9\n" % sys.version_info[:2])
    sys.exit(3)

from delegator.device.command import main

__all__ = ["main"]
