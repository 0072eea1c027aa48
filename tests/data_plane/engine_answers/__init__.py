"""Answers of an engine that are none: each is a clear error, with no needless attempt and an exact bill."""
