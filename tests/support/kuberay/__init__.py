"""Stand-ins for the KubeRay operator, which needs pods: they watch RayServices and write what KubeRay writes.

paper: replicas and pods that exist on paper only, told of through dashboards; for what the controller does. Its
    docstring says how a test steers it. world, reconcile, manifests, dashboards and api are its parts.
operator: a real local Ray for one RayService, its serve config deployed through Ray's own dashboard.
"""
