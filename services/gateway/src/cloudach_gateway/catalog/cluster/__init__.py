"""The Model resources of a Kubernetes cluster: listed, watched, woken. The only place that talks to an API server."""

from .access import Access, AccessError
from .models import ClusterModels, News

__all__ = ["Access", "AccessError", "ClusterModels", "News"]
