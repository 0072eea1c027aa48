"""A condition has one of these reasons. Each has a meaning, which tells the operator what to do."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    # of Ready
    REPLICAS_READY = "ReplicasReady"
    NO_REPLICA_READY = "NoReplicaReady"
    NOT_REACHABLE = "NotReachable"
    SLEEPING = "Sleeping"
    SCALED_TO_ZERO = "ScaledToZero"
    DELETING = "Deleting"
    # of Progressing
    DEPLOYING = "Deploying"
    SCALING = "Scaling"
    WAKING = "Waking"
    DRAINING = "Draining"
    REPLACEMENT_PENDING = "ReplacementPending"
    REPLACING = "Replacing"
    ROLLOUT_FAILED = "RolloutFailed"
    NOT_TAKEN = "NotTaken"
    KUBERAY_BEHIND = "KubeRayBehind"
    UP_TO_DATE = "UpToDate"
    # of Degraded
    AS_EXPECTED = "AsExpected"
    INVALID_SPEC = "InvalidSpec"
    NAME_WANTED = "NameWanted"
    NAME_TAKEN = "NameTaken"
    NO_GPU_NODE_FITS = "NoGpuNodeFits"
    NO_HEAD_NODE_FITS = "NoHeadNodeFits"
    QUOTA_EXCEEDED = "QuotaExceeded"
    SECRET_MISSING = "SecretMissing"
    VOLUME_MISSING = "VolumeMissing"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    WEIGHTS_NOT_FOUND = "WeightsNotFound"
    WEIGHTS_GATED = "WeightsGated"
    ADAPTER_NOT_LOADED = "AdapterNotLoaded"
    ENGINE_CRASHED = "EngineCrashed"
    OUT_OF_MEMORY = "OutOfMemory"
    FEWER_REPLICAS = "FewerReplicas"
    PROGRESS_DEADLINE = "ProgressDeadlineExceeded"
    FIELDS_CONTESTED = "FieldsContested"
    KUBERAY_MISSING = "KubeRayMissing"
    RAY_SERVICE_MISSING = "RayServiceMissing"
    RAY_SERVICE_FAILED = "RayServiceFailed"
    RAY_UNREACHABLE = "RayUnreachable"


MEANINGS = {
    Reason.REPLICAS_READY: "At least one replica answers.",
    Reason.NO_REPLICA_READY: "No replica answers. Progressing and Degraded say why.",
    Reason.NOT_REACHABLE: "Replicas run, but none can be reached yet, because none of their pods is ready.",
    Reason.SLEEPING: "No replica runs, because no request came for `idleSeconds`. The next request wakes the Model.",
    Reason.SCALED_TO_ZERO: "No replica runs, because `spec.replicas` is 0. No request wakes the Model.",
    Reason.DELETING: "The Model is being deleted, and its streams run out.",
    Reason.DEPLOYING: "Pods start, or weights load.",
    Reason.SCALING: "The number of replicas changes. Those that stay go on undisturbed.",
    Reason.WAKING: "A request has come in and the first replica starts.",
    Reason.DRAINING: "Replicas that go let their streams run out, for `drainSeconds` at most.",
    Reason.REPLACEMENT_PENDING: "The change takes a second set of pods, so twice the GPUs, until they have taken over.",
    Reason.REPLACING: "The second set of pods starts. The first one answers until the second is ready.",
    Reason.ROLLOUT_FAILED: "The new replicas do not start, and Degraded says why. The old ones go on.",
    Reason.NOT_TAKEN: "This spec is not in force, and Degraded says why. What ran before goes on.",
    Reason.KUBERAY_BEHIND: "KubeRay has not acted for a while. Check that its operator runs, and that it reaches "
    "port 8265 of the head (`networkPolicy.kuberayNamespace`, `networkPolicy.kuberayFrom`).",
    Reason.UP_TO_DATE: "The Model is as the spec asks for.",
    Reason.AS_EXPECTED: "Nothing is wrong.",
    Reason.INVALID_SPEC: "The spec breaks a rule, and the message names the field. What ran before goes on.",
    Reason.NAME_WANTED: "Another Model asks for a name of this one, and this one keeps it.",
    Reason.NAME_TAKEN: "Another Model holds the id or alias, or a RayService of somebody else has the name. Choose "
    "another.",
    Reason.NO_GPU_NODE_FITS: "No node has the GPUs, their type, the memory or the CPUs free: add one, or ask for less.",
    Reason.NO_HEAD_NODE_FITS: "No node takes the head pod, which needs no GPU: add one, or allow heads on others "
    "(the controller's `inference.head_tolerations`, `head_node_selector`, `head_with_model`).",
    Reason.QUOTA_EXCEEDED: "The namespace's ResourceQuota or a LimitRange is in the way.",
    Reason.SECRET_MISSING: "A Secret that the spec names, or its entry, does not exist.",
    Reason.VOLUME_MISSING: "The PersistentVolumeClaim does not exist, is not bound, or cannot be mounted.",
    Reason.IMAGE_PULL_FAILED: "The image does not exist, or `imagePullSecrets` do not allow it to be pulled.",
    Reason.WEIGHTS_NOT_FOUND: "The repository, the folder or the bucket does not hold the model.",
    Reason.WEIGHTS_GATED: "The repository needs a token (`source.huggingFace.tokenSecret`), or its licence has to be "
    "accepted.",
    Reason.ADAPTER_NOT_LOADED: "A LoRA adapter is not where the spec says, or does not fit the model. The message "
    "names it.",
    Reason.ENGINE_CRASHED: "The engine ends again and again. The message is its last error.",
    Reason.OUT_OF_MEMORY: "The GPU's or the pod's memory is too small: lower `maxModelLen`, or give more GPUs or "
    "higher limits.",
    Reason.FEWER_REPLICAS: "The Model answers, but with fewer replicas than it should have.",
    Reason.PROGRESS_DEADLINE: "The change makes no progress. Nothing is rolled back: repair it, or take the change "
    "back.",
    Reason.FIELDS_CONTESTED: "Somebody changes the RayService again and again. The controller corrects it at growing "
    "intervals.",
    Reason.KUBERAY_MISSING: "The cluster has no RayService kind: install the KubeRay operator.",
    Reason.RAY_SERVICE_MISSING: "Somebody deleted the RayService. It is being made anew.",
    Reason.RAY_SERVICE_FAILED: "The API server or KubeRay refuses the RayService. The message has its words.",
    Reason.RAY_UNREACHABLE: "The Ray cluster's head does not answer. What runs is left as it is.",
}
"""These texts tell an operator what each reason means. docs/models.md has them as a table."""
