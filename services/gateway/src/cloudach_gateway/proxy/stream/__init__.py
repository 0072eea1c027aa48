"""Makes the client's answer from the events of an engine's stream. Pure."""
