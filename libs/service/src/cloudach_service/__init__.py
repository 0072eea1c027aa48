"""This library has what every service needs.

`settings` come from one YAML file, `logs` are JSON, `metrics` are Prometheus's. `processes` end with the process that
started them, and `private_files` are read by their owner alone.
"""
