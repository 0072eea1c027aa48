"""HTTP/1.1 towards engines: connections, one request at one engine, and what its answer means."""
