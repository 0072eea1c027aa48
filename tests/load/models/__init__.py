"""What the controller costs with many Models: `python -m tests.load.models --help`."""
