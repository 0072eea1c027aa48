"""Runs the whole platform on one machine: it starts, watches and ends the gateway and the engines."""
