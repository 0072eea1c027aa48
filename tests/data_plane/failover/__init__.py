"""Engines break off in mid-stream: what the client gets then."""
