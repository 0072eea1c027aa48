"""What a proxy costs: CPU time, throughput and added latency of each contender. `python -m tests.bench --help`."""
