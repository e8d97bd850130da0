"""Mixer's own metrics, all in one place; the README has them as a table."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

POLICY_LOADS = Counter(
    "meshwright_mixer_policy_loads", "Policies that were compiled and loaded, by result.", ["result"]
)
POLICY_RULES = Gauge("meshwright_mixer_policy_rules", "Rules in the policy that is in force.")
POLICY_REVISION = Gauge("meshwright_mixer_policy_revision", "Configuration revision of the policy that is in force.")
REPLICAS = Gauge("meshwright_mixer_replicas", "Mixer replicas that share quotas, this one included.")
RECORDS_STORED = Counter("meshwright_mixer_records_stored", "Records that the work queue took.")
RECORDS_RETRIED = Counter("meshwright_mixer_records_retried", "Attempts to store a record that failed.")
RECORDS_ACKNOWLEDGED = Counter("meshwright_mixer_records_acknowledged", "Records that every handler took.")
RECORDS_RETURNED = Counter("meshwright_mixer_records_returned", "Records given back to the queue to come again.")
RECORDS_REDELIVERED = Counter("meshwright_mixer_records_redelivered", "Records that came more than once.")
RECORDS_UNCLAIMED = Counter("meshwright_mixer_records_unclaimed", "Instances whose handler was deleted meanwhile.")
RECORDS_TOO_LARGE = Counter("meshwright_mixer_records_too_large", "Records that no queue would take; dropped.")
RECORDS_UNREADABLE = Counter("meshwright_mixer_records_unreadable", "Queue entries that are no records; dropped.")
ENTRIES_HANDLED = Counter("meshwright_mixer_entries_handled", "Instances that a handler took.", ["handler", "adapter"])
BATCHES_FAILED = Counter("meshwright_mixer_batches_failed", "Batches that a handler refused.", ["handler", "adapter"])
