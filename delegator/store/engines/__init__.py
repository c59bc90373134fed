"""What runs the store's transactions: SQLite, embedded, or PostgreSQL, shared. A folder each, and what both need.

The invariant: the two know nothing of each other; what the SQL means is written once, above them.
Must not live here: statements about devices, claims or the audit.
"""
