"""The kinds that are Cloudach's own and KubeRay's."""

from __future__ import annotations

from cloudach_kube.kinds import Kind
from cloudach_model_api.names import GROUP, PLURAL, USE_PLURAL, VERSION

MODELS = Kind(GROUP, VERSION, PLURAL)
MODEL_USES = Kind(GROUP, VERSION, USE_PLURAL)
RAY_SERVICES = Kind("ray.io", "v1", "rayservices")
RAY_CLUSTERS = Kind("ray.io", "v1", "rayclusters")
