"""Mixer's own metrics, all in one place; the README has them as a table."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

POLICY_LOADS = Counter(
    "meshwright_mixer_policy_loads", "Policies that were compiled and loaded, by result.", ["result"]
)
POLICY_RULES = Gauge("meshwright_mixer_policy_rules", "Rules in the policy that is in force.")
POLICY_DROPPED = Gauge("meshwright_mixer_policy_documents_left_out", "Documents left out of it because of faults.")
POLICY_REVISION = Gauge("meshwright_mixer_policy_revision", "Configuration revision of the policy that is in force.")
REPLICAS = Gauge("meshwright_mixer_replicas", "Mixer replicas that share quotas, this one included.")
ENTRIES_UNCLAIMED = Counter("meshwright_mixer_entries_unclaimed", "Instances whose handler was deleted meanwhile.")
ENTRIES_HANDLED = Counter("meshwright_mixer_entries_handled", "Instances that a handler took.", ["handler", "adapter"])
BATCHES_FAILED = Counter("meshwright_mixer_batches_failed", "Batches that a handler refused.", ["handler", "adapter"])
