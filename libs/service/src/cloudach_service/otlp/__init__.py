"""Traces, metrics and logs have this in common on their way out by OpenTelemetry's protocol, OTLP."""
