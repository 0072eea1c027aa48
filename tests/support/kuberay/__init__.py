"""Stand-ins for the KubeRay operator, which needs pods: they watch RayServices and write what KubeRay writes.

paper: replicas that exist on paper only, told of through a dashboard; for what the controller does.
operator: a real local Ray for one RayService, its serve config deployed through Ray's own dashboard.
"""
