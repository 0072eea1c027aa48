{{/* Whether the chart runs the store of Ray's state: yes, or nothing. A store of one's own goes before it. */}}
{{- define "cloudach.raystore" -}}
{{- if and .Values.controller.enabled .Values.raystore.enabled (not (default dict .Values.controller.config.ray).gcs_redis_address) -}}yes{{- end -}}
{{- end -}}

{{/* The Secret with the store's own password, which only the controller uses. */}}
{{- define "cloudach.raystoreSecret" -}}
{{- default (printf "%s-raystore" (include "cloudach.fullname" .)) .Values.raystore.auth.existingSecret -}}
{{- end -}}

{{/* Ray's state may not be evicted. Users, one for each Model, stand in a file that the store itself writes. */}}
{{- define "cloudach.raystoreConfig" -}}
dir /data
port 6379
aclfile /data/users.acl
save ""
appendonly yes
appendfsync everysec
maxmemory {{ .Values.raystore.maxMemory }}
maxmemory-policy noeviction
{{- with .Values.raystore.extraConfig }}
{{ . | trim }}
{{- end }}
{{- end -}}

{{/* What the controller is told of the store. */}}
{{- define "cloudach.raystoreSettings" -}}
{{- $pods := dict "matchLabels" (fromYaml (include "cloudach.selectorLabels" (list . "raystore"))) -}}
{{- $release := dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace) -}}
address: {{ printf "%s-raystore.%s.svc:6379" (include "cloudach.fullname" .) .Release.Namespace | quote }}
password_file: /etc/cloudach-raystore/password
pods: {{ list (dict "namespaceSelector" $release "podSelector" $pods) | toJson }}
new_clusters: {{ .Values.raystore.newClusters }}
{{- end -}}
