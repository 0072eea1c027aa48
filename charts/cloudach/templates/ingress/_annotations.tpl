{{/*
Streams pass unbuffered and are not cut before the gateway's own limit, which sends a heart-beat every few seconds; bodies
are as large as the gateway takes them.
*/}}
{{- define "cloudach.ingressAnnotations" -}}
{{- $seconds := include "cloudach.streamSeconds" . -}}
{{- $bytes := int (default 10485760 .Values.gateway.config.max_body_bytes) -}}
{{- if eq .Values.ingress.flavour "nginx" -}}
nginx.ingress.kubernetes.io/proxy-buffering: "off"
nginx.ingress.kubernetes.io/proxy-request-buffering: "off"
nginx.ingress.kubernetes.io/proxy-http-version: "1.1"
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ quote $seconds }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ quote $seconds }}
nginx.ingress.kubernetes.io/proxy-body-size: {{ quote $bytes }}
nginx.ingress.kubernetes.io/proxy-next-upstream: "off" # the gateway retries where it is safe
{{- else if eq .Values.ingress.flavour "haproxy" -}}
haproxy.org/timeout-server: {{ $seconds }}s
haproxy.org/timeout-client: {{ $seconds }}s
{{- else if eq .Values.ingress.flavour "alb" -}}
alb.ingress.kubernetes.io/target-type: ip
alb.ingress.kubernetes.io/load-balancer-attributes: idle_timeout.timeout_seconds={{ min 4000 (int $seconds) }}
alb.ingress.kubernetes.io/target-group-attributes: deregistration_delay.timeout_seconds={{ min 3600 (add (int .Values.gateway.drainSeconds) (int .Values.gateway.preStopSeconds)) }}
alb.ingress.kubernetes.io/healthcheck-path: /readyz
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* The longest that a request may take, and a little more. */}}
{{- define "cloudach.streamSeconds" -}}
{{- $timeouts := default dict .Values.gateway.config.timeouts -}}
{{- add 60 (int (ceil (float64 (default 900 $timeouts.total_s)))) -}}
{{- end -}}
