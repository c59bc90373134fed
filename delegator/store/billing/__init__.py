"""What customers are billed: events counted, plans by month, months that are closed, compared with the audit.

The invariant: a billable event is an issued claim, and has no row of its own.
Must not live here: prices and rounding (delegator.billing).
"""
