"""Processes: settings become a running delegator, or several of one parent; start, reload, drain, end.

The invariant: nothing listens before everything it needs was checked; a reload that is not in order changes nothing.
Must not live here: decisions, formats, what operators read (watching).
"""
