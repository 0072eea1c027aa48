"""Models under Ray Serve on this machine: planned, started, watched and ended."""
