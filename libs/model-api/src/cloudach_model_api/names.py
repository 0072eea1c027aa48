"""These are the names of the Model resource and of the marks on it."""

from __future__ import annotations

from typing import Final

GROUP = "cloudach.dev"
VERSION = "v1alpha1"
API_VERSION: Final = "cloudach.dev/v1alpha1"
KIND: Final = "Model"
LIST_KIND = "ModelList"
SINGULAR = "model"
PLURAL = "models"
SHORT_NAME = "mdl"
CATEGORY = "cloudach"
CRD_NAME = f"{PLURAL}.{GROUP}"

USE_KIND: Final = "ModelUse"
USE_LIST_KIND = "ModelUseList"
USE_SINGULAR = "modeluse"
USE_PLURAL = "modeluses"
USE_CRD_NAME = f"{USE_PLURAL}.{GROUP}"

FINALIZER = f"{GROUP}/drain"
"""The controller sets it on every Model that it works on, so that streams end before pods do."""

LABEL_MODEL = f"{GROUP}/model"
"""The controller sets it on all that it makes for a Model. The value is the Model's name."""

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "cloudach-controller"
"""This is the value of LABEL_MANAGED_BY, and the controller's field manager in server-side apply."""

ANNOTATION_WAKE_REQUESTED_AT = f"{GROUP}/wake-requested-at"
"""This time (RFC 3339) wakes a Model. Gateways of version 0.1 write it; later ones write to its ModelUse."""

ANNOTATION_LAST_REQUEST_AT = f"{GROUP}/last-request-at"
"""This time (RFC 3339) keeps a Model awake. Gateways of version 0.1 write it; later ones write to its ModelUse."""

ANNOTATION_ALLOW_REPLACEMENT = f"{GROUP}/allow-replacement"
"""With this the operator allows a change that takes a second set of pods: their hash, `once:<text>` or `always`."""

GPU_TYPE_LABEL = "nvidia.com/gpu.product"
"""`spec.gpu.type` is compared with this node label unless the controller's settings name another one."""

MAX_NAME_LENGTH = 47
"""A RayService has its Model's name, and KubeRay accepts at most this many characters."""
