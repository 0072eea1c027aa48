"""Traces by OpenTelemetry: each span is made once, at the end of what it tells of, and a thread sends it.

A request costs ids at its beginning and, if it is exported, the writing of its spans at its end (ADR 30).
"""
