"""From a Model to the objects that KubeRay reads: pure."""
