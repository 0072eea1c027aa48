"""The Model resources of a Kubernetes cluster: listed, watched, woken. The only place that talks to an API server."""

from .api import find_access
from .models import ClusterModels, News

__all__ = ["ClusterModels", "News", "find_access"]
