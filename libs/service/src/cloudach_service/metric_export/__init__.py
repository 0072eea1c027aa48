"""The metrics that Prometheus scrapes go out by OTLP too, with the same values (ADR 31)."""
