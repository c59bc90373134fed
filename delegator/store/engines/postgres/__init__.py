"""The shared engine: connections that are lent, servers that change places, and locks between processes.

The invariant: what was told as durable is on the one server that takes writes.
Must not live here: what the SQL means, the other engine.
"""
