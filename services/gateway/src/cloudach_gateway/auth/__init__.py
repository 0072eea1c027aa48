"""API keys: how they are made, changed and taken away. Checking them is part of admission (ratelimit)."""
