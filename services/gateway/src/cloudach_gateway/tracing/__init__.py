"""Makes a request's trace from its record, once the request has ended."""
