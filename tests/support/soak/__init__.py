"""Streams through one gateway for a long time, and what the gateway holds meanwhile."""
