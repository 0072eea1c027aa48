{{/* The gateway's configuration file: values' settings, and over them what the chart decides. In JSON,
which is YAML that every library reads alike: for some of them a plain `=` or `<<` is no string. */}}
{{- define "cloudach.gatewayConfig" -}}
{{- $config := deepCopy .Values.gateway.config -}}
{{- $listen := dict "host" "0.0.0.0" "port" 8000 "metrics_port" 9090 "processes" (int .Values.gateway.processes) -}}
{{- $own := dict "listen" $listen "redis" (dict "url" "${CLOUDACH_REDIS_URL}") "timeouts" (dict "drain_s" (int .Values.gateway.drainSeconds)) -}}
{{- if .Values.valkey.enabled -}}
{{- $_ := set $own.redis "password" "${CLOUDACH_REDIS_PASSWORD}" -}}
{{- end -}}
{{- if .Values.gateway.watchModels -}}
{{- $watch := dict "enabled" true "namespaces" (fromYaml (include "cloudach.watched" .)).namespaces "cache_file" "/tmp/models.json" -}}
{{- $_ := set $own "kubernetes" $watch -}}
{{- end -}}
{{- toPrettyJson (mergeOverwrite $config $own) -}}
{{- end -}}
