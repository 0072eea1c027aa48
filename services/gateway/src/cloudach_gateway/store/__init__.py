"""Access to Redis. No other layer knows that it is Redis.

`layout` says what lies where, `store` is the way to it, and `embedded` runs a Valkey of our own.
"""
