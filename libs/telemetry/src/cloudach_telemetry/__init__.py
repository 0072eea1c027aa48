"""JSON logs and Prometheus metrics, the same in every service."""
