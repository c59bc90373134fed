"""The doors: bytes come in, a use case answers, bytes go out. This floor alone renders errors.

What all doors do alike stands here once; a door itself is a file or a folder of its own.
The invariant: no door imports another one, and none knows SQL.
Must not live here: what to answer (the use cases), which doors a process has (its composition).
"""
