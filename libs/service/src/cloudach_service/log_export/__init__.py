"""The lines of the log go out by OTLP too, as log records (ADR 31)."""
