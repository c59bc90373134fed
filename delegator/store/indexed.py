"""Conditions that partial indexes on claims have: a query repeats them word for word, or no index answers it.

Must not live here: statements, what a state means (model.lifecycle).
"""

from __future__ import annotations

LIVE = "state IN ('asking', 'issued', 'confirmed')"
PAST = "state IN ('expired', 'released')"
"""These two words stand in the conditions of partial indexes; a query must repeat them to be answered by one."""
OF_TAG = (f"claim_id IN (SELECT claim_id FROM claims WHERE service_tag = {{0}} AND {LIVE} UNION ALL "
          f"SELECT claim_id FROM claims WHERE service_tag = {{0}} AND {PAST})")
"""All claims of a tag by its two indexes: live ones have one of their own, so that a new claim pays for one only."""
