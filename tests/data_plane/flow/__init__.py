"""Clients that read slowly, not at all, or go away."""
