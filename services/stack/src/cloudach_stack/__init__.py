"""The whole platform on one machine: starts, watches and ends gateway and engines."""
