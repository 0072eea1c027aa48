{{/* Keys and usage may not be evicted; the append-only file is the one copy on disk. */}}
{{- define "cloudach.valkeyConfig" -}}
dir /data
{{- if .Values.valkey.tls.enabled }}
port 0
tls-port 6379
tls-cert-file /etc/valkey-tls/tls.crt
tls-key-file /etc/valkey-tls/tls.key
tls-ca-cert-file /etc/valkey-tls/ca.crt
tls-auth-clients no
{{- else }}
port 6379
{{- end }}
save ""
appendonly yes
appendfsync {{ .Values.valkey.appendfsync }}
maxmemory {{ .Values.valkey.maxMemory }}
maxmemory-policy noeviction
{{- with .Values.valkey.extraConfig }}
{{ . | trim }}
{{- end }}
{{- end -}}

{{/* The Secret with Valkey's certificate, its key and the CA. */}}
{{- define "cloudach.valkeyTlsSecret" -}}
{{- default (printf "%s-valkey-tls" (include "cloudach.fullname" .)) .Values.valkey.tls.existingSecret -}}
{{- end -}}

{{/* Whether clients of Valkey need the CA of its certificate: yes, or nothing. */}}
{{- define "cloudach.valkeyTls" -}}
{{- if and .Values.valkey.enabled .Values.valkey.tls.enabled -}}yes{{- end -}}
{{- end -}}

{{/* The volume with that CA, and its mount, for what asks Valkey. */}}
{{- define "cloudach.valkeyCaVolume" -}}
- name: valkey-ca
  secret: {secretName: {{ include "cloudach.valkeyTlsSecret" . | quote }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end -}}
{{- define "cloudach.valkeyCaMount" -}}
- {name: valkey-ca, mountPath: /etc/valkey-ca, readOnly: true}
{{- end -}}
