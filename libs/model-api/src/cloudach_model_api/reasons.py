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
    Reason.NO_REPLICA_READY: "No replica answers yet, or any more; Progressing and Degraded say why.",
    Reason.NOT_REACHABLE: "Replicas run, and none can be reached yet, because no pod of theirs is ready.",
    Reason.SLEEPING: "No replica, because nobody has asked for `idleSeconds`; the next request wakes it.",
    Reason.SCALED_TO_ZERO: "No replica, because `spec.replicas` is 0; no request wakes it.",
    Reason.DELETING: "It is being deleted; its streams run out.",
    Reason.DEPLOYING: "Pods start, or weights load.",
    Reason.SCALING: "The number of replicas changes; those that stay go on undisturbed.",
    Reason.WAKING: "A request has come in and the first replica starts.",
    Reason.DRAINING: "Replicas that go let their streams run out, for `drainSeconds` at most.",
    Reason.REPLACEMENT_PENDING: "The change takes a second set of pods, so twice the GPUs, until they have taken over.",
    Reason.REPLACING: "The second set of pods starts; the first answers until it is ready.",
    Reason.ROLLOUT_FAILED: "The new replicas do not come up; Degraded says why. Those from before go on.",
    Reason.NOT_TAKEN: "This spec is not in force, and Degraded says why. What ran before goes on.",
    Reason.KUBERAY_BEHIND: "KubeRay has not acted for a while. Look whether its operator runs, and whether it reaches "
    "port 8265 of the head (`networkPolicy.kuberayNamespace`, `networkPolicy.kuberayFrom`).",
    Reason.UP_TO_DATE: "It is as the spec asks for.",
    Reason.AS_EXPECTED: "Nothing to look at.",
    Reason.INVALID_SPEC: "The spec breaks a rule; the message names the field. What ran before goes on.",
    Reason.NAME_WANTED: "Another Model asks for a name of this one, which keeps it.",
    Reason.NAME_TAKEN: "Another Model holds the id or alias, or a RayService of another has the name. Choose another.",
    Reason.NO_GPU_NODE_FITS: "No node has the GPUs, their type, the memory or the CPUs free: add one, or ask for less.",
    Reason.NO_HEAD_NODE_FITS: "No node takes the head pod, which needs no GPU: add one, or let heads onto others "
    "(the controller's `inference.head_tolerations`, `head_node_selector`, `head_with_model`).",
    Reason.QUOTA_EXCEEDED: "The namespace's ResourceQuota or a LimitRange is in the way.",
    Reason.SECRET_MISSING: "A Secret that the spec names, or its entry, is not there.",
    Reason.VOLUME_MISSING: "The PersistentVolumeClaim is not there, not bound, or cannot be mounted.",
    Reason.IMAGE_PULL_FAILED: "The image is not there, or `imagePullSecrets` do not let it be pulled.",
    Reason.WEIGHTS_NOT_FOUND: "The repository, the folder or the bucket does not hold the model.",
    Reason.WEIGHTS_GATED: "The repository wants a token, or its licence accepted: `source.huggingFace.tokenSecret`.",
    Reason.ADAPTER_NOT_LOADED: "A LoRA adapter is not where the spec says, or does not fit the model; it is named.",
    Reason.ENGINE_CRASHED: "The engine ends again and again; the message is its last error.",
    Reason.OUT_OF_MEMORY: "The GPU's or the pod's memory is too small: lower `maxModelLen`, more GPUs, higher limits.",
    Reason.FEWER_REPLICAS: "It answers, with fewer replicas than it should have.",
    Reason.PROGRESS_DEADLINE: "It is on its way and makes no step. Nothing is rolled back: mend it, or take the change "
    "back.",
    Reason.FIELDS_CONTESTED: "Somebody changes the RayService again and again. It is put right ever more rarely.",
    Reason.KUBERAY_MISSING: "The cluster has no RayService kind: install the KubeRay operator.",
    Reason.RAY_SERVICE_MISSING: "Somebody deleted the RayService; it is being made anew.",
    Reason.RAY_SERVICE_FAILED: "The API server or KubeRay refuses the RayService; the message has its words.",
    Reason.RAY_UNREACHABLE: "The Ray cluster's head does not answer; what runs is left as it is.",
}
"""What each says to an operator; the table of docs/models.md."""
