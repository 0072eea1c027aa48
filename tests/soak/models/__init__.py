"""What the controller costs with many Models: `python -m tests.soak.models --help`."""
