"""Traces by OpenTelemetry: each span is made once, at the end of what it tells of, and a thread exports it.

The request's path costs ids at its beginning and one entry of a queue at its end: docs/adr/0030-traces.md.
"""
