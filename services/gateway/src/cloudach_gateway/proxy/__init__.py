"""From an admitted request to the engine and back: pick an upstream, relay its stream, count its tokens."""
