"""How an answer goes on with another engine when its own breaks off: pure."""
