{{/* Keys and usage may not be evicted; the append-only file is the one copy on disk. */}}
{{- define "cloudach.valkeyConfig" -}}
dir /data
port 6379
save ""
appendonly yes
appendfsync {{ .Values.valkey.appendfsync }}
maxmemory {{ .Values.valkey.maxMemory }}
maxmemory-policy noeviction
{{- with .Values.valkey.extraConfig }}
{{ . | trim }}
{{- end }}
{{- end -}}
