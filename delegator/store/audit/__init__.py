"""The audit: chained rows, written, read, verified, marked and pruned.

The invariant: a row is appended by the transaction of what it tells, and never changed.
Must not live here: what is worth a row (whoever acts), how rows are shown.
"""
