"""Redis: the only layer that knows it is Redis. layout: what lies where; store: the way to it; embedded: our own."""
