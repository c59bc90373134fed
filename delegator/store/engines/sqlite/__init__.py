"""The embedded engine: one writing connection, one that reads, the files they lie in, and copies of these.

The invariant: what was told as durable is on disk, in the file at its path.
Must not live here: what the SQL means, the other engine.
"""
