"""What becomes of the events of an engine's stream on their way to the client: pure."""
