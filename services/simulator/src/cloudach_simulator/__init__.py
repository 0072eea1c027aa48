"""A simulator of vLLM's API server: deterministic, fast, with faults on demand; no torch."""
