{{/* The name that objects start with. */}}
{{- define "cloudach.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (list $ component): the labels that select a component's pods; they never change. */}}
{{- define "cloudach.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 | quote }}
{{- end -}}

{{/* (list $ component): all labels, as a map in YAML. */}}
{{- define "cloudach.labels" -}}
{{- $root := index . 0 -}}
{{- $own := fromYaml (include "cloudach.selectorLabels" .) -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- $_ := set $own "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "cloudach" -}}
{{- toYaml (merge $own $root.Values.commonLabels) -}}
{{- end -}}

{{/*
(dict root component [name namespace labels annotations]): an object's metadata. With `pod`: of a pod's template, without
what changes with each version of the chart, so that nothing restarts for that alone.
*/}}
{{- define "cloudach.metadata" -}}
{{- $root := .root -}}
{{- $own := fromYaml (include "cloudach.labels" (list $root .component)) -}}
{{- if .pod -}}
{{- $own = omit $own "helm.sh/chart" "app.kubernetes.io/version" -}}
{{- end -}}
metadata:
  {{- if not .pod }}
  name: {{ default (printf "%s-%s" (include "cloudach.fullname" $root) .component) .name | quote }}
  {{- if not .cluster }}
  namespace: {{ default $root.Release.Namespace .namespace | quote }}
  {{- end }}
  {{- end }}
  labels:
    {{- mergeOverwrite (default dict (deepCopy (default dict .labels))) $own | toYaml | nindent 4 }}
  {{- with merge (deepCopy (default dict .annotations)) $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* (list $ image): the reference of an image; a digest goes before the tag. */}}
{{- define "cloudach.image" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $root.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (list $ component): the service account of gateway or controller. */}}
{{- define "cloudach.serviceAccountName" -}}
{{- $root := index . 0 -}}
{{- $account := (index $root.Values (index . 1)).serviceAccount -}}
{{- default (printf "%s-%s" (include "cloudach.fullname" $root) (index . 1)) $account.name -}}
{{- end -}}

{{/* (list $ component): the name of its PriorityClass, or nothing. */}}
{{- define "cloudach.priorityClassName" -}}
{{- $root := index . 0 -}}
{{- $named := (index $root.Values (index . 1)).priorityClassName -}}
{{- if $named -}}
{{ $named }}
{{- else if $root.Values.priorityClasses.create -}}
{{ include "cloudach.fullname" $root }}-{{ $root.Release.Namespace }}-{{ ternary "controller" "gateway" (eq (index . 1) "controller") }}
{{- end -}}
{{- end -}}

{{/* The namespaces whose Models are served, as {namespaces: […]}; empty for all of them. */}}
{{- define "cloudach.watched" -}}
{{- if has "*" .Values.watchNamespaces -}}
namespaces: []
{{- else -}}
namespaces: {{ default (list .Release.Namespace) .Values.watchNamespaces | uniq | toJson }}
{{- end -}}
{{- end -}}

{{/*
Watched namespaces in which nothing can be made, as {namespaces: […]}: those that were deleted, or are about to be. Their
Roles are left out, because an upgrade must not fail for a namespace that another team has taken away. Only an upgrade asks,
and only for a namespace that lacks its Role, so that no installer needs a new right otherwise. Where others make the Roles there
is nothing to leave out.
*/}}
{{- define "cloudach.away" -}}
{{- $away := list -}}
{{- $name := include "cloudach.fullname" . -}}
{{- if and .Release.IsUpgrade .Values.preflight .Values.rbac.create (lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-gateway" $name)) -}}
{{- range without (fromYaml (include "cloudach.watched" .)).namespaces .Release.Namespace -}}
{{- $role := printf "%s-%s" $name (ternary "controller" "gateway" $.Values.controller.enabled) -}}
{{- if not (lookup "rbac.authorization.k8s.io/v1" "Role" . $role) -}}
{{- $there := lookup "v1" "Namespace" "" . -}}
{{- if or (not $there) (eq (dig "status" "phase" "" $there) "Terminating") -}}
{{- $away = append $away . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
namespaces: {{ toJson $away }}
{{- end -}}

{{/* How long the Models of the release may take to go, in seconds: streams, then pods. */}}
{{- define "cloudach.drainSeconds" -}}
{{- $longest := 0 -}}
{{- range .Values.models -}}
{{- $longest = max $longest (int64 (dig "drainSeconds" 60 .spec)) -}}
{{- end -}}
{{- add $longest (int64 (dig "ray" "drain_margin_s" 60 .Values.controller.config)) 60 -}}
{{- end -}}

{{/* (list $ component): topology spread of its pods. */}}
{{- define "cloudach.spread" -}}
{{- $root := index . 0 -}}
{{- $selector := dict "matchLabels" (fromYaml (include "cloudach.selectorLabels" .)) -}}
{{- range (index $root.Values (index . 1)).topologySpreadConstraints }}
- {{- merge (deepCopy .) (dict "labelSelector" $selector) | toYaml | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The environment that tells where Redis is. */}}
{{- define "cloudach.redisEnv" -}}
{{- if .Values.valkey.enabled -}}
- name: CLOUDACH_REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ default (printf "%s-valkey" (include "cloudach.fullname" .)) .Values.valkey.auth.existingSecret | quote }}
      key: {{ .Values.valkey.auth.existingSecretKey | quote }}
- name: CLOUDACH_REDIS_URL
  {{- $tls := include "cloudach.valkeyTls" . }}
  value: "redis{{ if $tls }}s{{ end }}://{{ include "cloudach.fullname" . }}-valkey:6379/0{{ if $tls }}?ssl_ca_certs=/etc/valkey-ca/ca.crt{{ end }}"
{{- else -}}
- name: CLOUDACH_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.existingSecret | quote }}
      key: {{ .Values.redis.existingSecretKey | quote }}
{{- end -}}
{{- end -}}

{{/* (list $ component [hostAliases]): what the pods of a component share, from pull secrets to spread. */}}
{{- define "cloudach.podPlacement" -}}
{{- $given := . -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- with index $root.Values $component -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "cloudach.priorityClassName" (list $root $component) }}
priorityClassName: {{ quote . }}
{{- end }}
securityContext:
  {{- toYaml .podSecurityContext | nindent 2 }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $aliases := "" }}{{ if gt (len $given) 2 }}{{ $aliases = index $given 2 }}{{ end }}
{{- with default .hostAliases $aliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- include "cloudach.spread" (list $root $component) | trim | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* (list probe request): a probe of values with the chart's request. */}}
{{- define "cloudach.probe" -}}
{{- merge (dict "httpGet" (index . 1)) (index . 0) | toYaml -}}
{{- end -}}
