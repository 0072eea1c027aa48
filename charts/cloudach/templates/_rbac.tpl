{{/* The gateway reads Models, and where their pods are. It wakes a sleeping one in the status of that Model's ModelUse, which holds nothing else. */}}
{{- define "cloudach.rules.gateway" -}}
- apiGroups: [cloudach.dev]
  resources: [models]
  verbs: [get, list, watch]
- apiGroups: [cloudach.dev]
  resources: [modeluses]
  verbs: [get]
- apiGroups: [cloudach.dev]
  resources: [modeluses/status]
  verbs: [patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices] # which pods of a Model are ready
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [secrets] # the keys that Models' engines ask for
  resourceNames: [cloudach-engine-keys]
  verbs: [get]
{{- end -}}

{{/* What the controller does in a namespace with Models. */}}
{{- define "cloudach.rules.controller" -}}
- apiGroups: [cloudach.dev]
  resources: [models]
  verbs: [get, list, watch, patch]
- apiGroups: [cloudach.dev]
  resources: [models/status]
  verbs: [get, patch]
- apiGroups: [cloudach.dev]
  resources: [models/finalizers] # to own what it makes, where OwnerReferencesPermissionEnforcement is on
  verbs: [update]
- apiGroups: [cloudach.dev]
  resources: [modeluses]
  verbs: [get, list, watch, create]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies] # two for each Model
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets] # one for each Model with two or more replicas
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [ray.io]
  resources: [rayservices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [ray.io]
  resources: [rayservices/status] # a second cluster that is not wanted any more goes by its name there
  verbs: [patch]
- apiGroups: [ray.io]
  resources: [rayclusters] # whose state a Model's heads may read in the store
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log] # an engine's last error line, for the Model's condition
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases] # says which release works on the namespace; `create` cannot be tied to a name
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [cloudach-models]
  verbs: [get, update]
- apiGroups: [""]
  resources: [secrets] # the locks of Ray's dashboards, made where missing; `create` cannot be tied to a name
  verbs: [create]
- apiGroups: [""]
  resources: [secrets] # the seed of Models' tokens of Ray
  resourceNames: [cloudach-ray-seed]
  verbs: [get]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "cloudach.rayTokenSecret" . | quote }}]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [secrets] # the keys that Models' engines ask for, one entry each
  resourceNames: [cloudach-engine-keys]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [secrets] # by which Models' heads log in to the store of Ray's state, one entry each
  resourceNames: [cloudach-gcs-store]
  verbs: [list, watch, patch]
{{- end -}}

{{/*
What outlives a namespace. When one is deleted its Roles go with it, at any moment, and the Models in it wait for the
controller to take its finalizer away: so it has to see that the namespace is being deleted, and to list and patch Models.
*/}}
{{- define "cloudach.rules.cluster" -}}
{{- $watched := (fromYaml (include "cloudach.watched" .)).namespaces -}}
- apiGroups: [""]
  resources: [namespaces]
  {{- with $watched }}
  resourceNames: {{ append . $.Release.Namespace | uniq | toJson }}
  {{- end }}
  verbs: [get]
- apiGroups: [cloudach.dev]
  resources: [models]
  verbs: [list, patch]
{{- end -}}

{{/* (dict root component what rules namespace): a Role and its binding to the component's service account. */}}
{{- define "cloudach.role" -}}
{{- $name := printf "%s-%s" (include "cloudach.fullname" .root) .what -}}
{{- $kind := ternary "ClusterRole" "Role" (empty .namespace) -}}
{{- $meta := dict "root" .root "component" .component "name" $name "namespace" .namespace "cluster" (empty .namespace) -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
{{ include "cloudach.metadata" $meta }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
{{ include "cloudach.metadata" $meta }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ $kind }}, name: {{ quote $name }}}
subjects:
  - kind: ServiceAccount
    name: {{ include "cloudach.serviceAccountName" (list .root .component) | quote }}
    namespace: {{ quote .root.Release.Namespace }}
{{- end -}}

{{/* The Lease of the leader. `create` cannot be tied to a name. */}}
{{- define "cloudach.rules.lease" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [cloudach-controller]
  verbs: [get, update]
{{- end -}}

{{/* The Secret with Ray's token, in each namespace with Models. */}}
{{- define "cloudach.rayTokenSecret" -}}
{{- default "cloudach-ray-token" (default dict .Values.controller.config.ray).token_secret -}}
{{- end -}}
