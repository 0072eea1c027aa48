"""Waiting for an engine and choosing it: attempts, balance, suspects, quarantine, the failover budget."""
