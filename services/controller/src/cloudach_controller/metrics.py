"""These are the metrics that Prometheus scrapes from the controller."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("cloudach_controller_reconciles_total", "Looks at a Model, by their result", ["result"])
RECONCILE_S = Histogram("cloudach_controller_reconcile_seconds", "Duration of one look at a Model")
CHANGES = Counter("cloudach_controller_changes_total", "Changes of RayServices, by their kind", ["change"])
QUEUE = Gauge("cloudach_controller_queue_length", "Models that wait to be looked at")
LEADER = Gauge("cloudach_controller_leader", "1: this controller works; 0: it waits for the Lease")
CONNECTED = Gauge(
    "cloudach_controller_watch_connected", "1: the watches of this kind stand; 0: one of them is lost", ["kind"]
)
READABLE = Gauge(
    "cloudach_controller_namespace_readable", "1: its Models are worked on; 0: it cannot be read", ["namespace"]
)
FOREIGN = Gauge(
    "cloudach_controller_namespace_foreign", "1: another release's controller works on its Models", ["namespace"]
)
DESIRED = Gauge("cloudach_model_desired_replicas", "Replicas that should exist", ["namespace", "model"])
READY = Gauge("cloudach_model_ready_replicas", "Replicas that answer", ["namespace", "model"])
STATE = Gauge("cloudach_model_state", "1 for the state that the Model is in", ["namespace", "model", "state"])
GCS_STORE_UP = Gauge("cloudach_controller_gcs_store_up", "1: the store of Ray's state answers this controller")
GCS_STORE_BYTES = Gauge("cloudach_controller_gcs_store_memory_bytes", "Memory that the store of Ray's state uses")
GCS_STORE_LIMIT_BYTES = Gauge(
    "cloudach_controller_gcs_store_memory_limit_bytes", "The maxmemory of the store of Ray's state; 0: it has none"
)
