{{/* The controller's configuration file: values' settings, and over them what the chart decides. In JSON,
which is YAML that every library reads alike: for some of them a plain `=` or `<<` is no string. */}}
{{- define "cloudach.controllerConfig" -}}
{{- $ray := dict "stream_limit_s" (int (include "cloudach.streamSeconds" .)) -}}
{{- $config := merge (deepCopy .Values.controller.config) (dict "ray" $ray) -}}
{{- $own := dict "listen" (dict "host" "0.0.0.0" "port" 8080) -}}
{{- $_ := set $own "kubernetes" (dict "namespaces" (fromYaml (include "cloudach.watched" .)).namespaces) -}}
{{- $_ := set $own "leader_election" (dict "enabled" true "namespace" .Release.Namespace "name" "cloudach-controller") -}}
{{- $_ := set $own "inference" (dict "image" (include "cloudach.image" (list . .Values.controller.inferenceImage))) -}}
{{- toPrettyJson (mergeOverwrite $config $own) -}}
{{- end -}}
