"""A device asks: who it is, whose it is, what is allowed to it, what it gets, and who is told of it. A use case.

`handshake` reads top to bottom like the patent's figure 2; the other files are its steps.
The invariant: values in, values out; what lasts is the store's.
Must not live here: bytes and faults (doors), sockets, SQL, other use cases.
"""
