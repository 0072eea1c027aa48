"""The edge gateway: authenticates API keys, limits, routes to engines, relays their streams."""
