"""The Model resource (cloudach.dev/v1alpha1) is defined here: its types, conditions and names. Pure."""

from .claims import Claim, Grant, Names, allocate
from .engine import Engine, EnvVar, Gpu, Resources, Toleration
from .model import AdapterNames, FieldError, InvalidModel, Model, ObjectMeta
from .reasons import Reason
from .source import AdapterSource, HuggingFace, ImageFolder, ObjectStore, Pvc, SecretKeyReference, Simulator, Source
from .spec import Adapter, Autoscaling, Lora, ModelSpec
from .status import Condition, ConditionType, ModelStatus, State, rfc3339, set_condition
from .use import ModelUse, UseStatus

__all__ = [
    "Adapter",
    "AdapterNames",
    "AdapterSource",
    "Autoscaling",
    "Claim",
    "Condition",
    "ConditionType",
    "Engine",
    "EnvVar",
    "FieldError",
    "Gpu",
    "Grant",
    "HuggingFace",
    "ImageFolder",
    "InvalidModel",
    "Lora",
    "Model",
    "ModelSpec",
    "ModelStatus",
    "ModelUse",
    "Names",
    "ObjectMeta",
    "ObjectStore",
    "Pvc",
    "Reason",
    "Resources",
    "SecretKeyReference",
    "Simulator",
    "Source",
    "State",
    "Toleration",
    "UseStatus",
    "allocate",
    "rfc3339",
    "set_condition",
]
