"""These modules look at one Model: its RayService, its pods, and the dashboard of its Ray cluster."""
