{{/*
The alerts: only on metrics that gateway and controller have. `job` is the component (jobLabel of the ServiceMonitors).
Each has a runbook of its name in docs/runbooks.
*/}}
{{- define "cloudach.alerts" -}}
{{- $ns := printf "namespace=%q" .Release.Namespace -}}
{{- $v := .Values.monitoring.prometheusRule -}}
rules:
  - alert: CloudachGatewayDown
    expr: absent(up{job="gateway", {{ $ns }}} == 1)
    for: 2m
    severity: critical
    summary: No gateway can be read; the API is probably down.
  - alert: CloudachGatewayPartlyDown
    expr: up{job="gateway", {{ $ns }}} == 0
    for: 10m
    severity: warning
    summary: The gateway {{ "{{ $labels.pod }}" }} cannot be read.
  - alert: CloudachAnswersFail
    expr: |
      sum by (model) (rate(cloudach_generations_total{outcome="failed", {{ $ns }}}[5m]))
        / sum by (model) (rate(cloudach_generations_total{ {{- $ns -}} }[5m])) > {{ $v.failedShare }}
    for: 5m
    severity: critical
    summary: Of the answers of {{ "{{ $labels.model }}" }}, {{ "{{ $value | humanizePercentage }}" }} fail.
  - alert: CloudachServerErrors
    expr: |
      sum by (route) (rate(cloudach_requests_total{status=~"5..", {{ $ns }}}[5m]))
        / sum by (route) (rate(cloudach_requests_total{ {{- $ns -}} }[5m])) > {{ $v.failedShare }}
    for: 5m
    severity: critical
    summary: Of the requests to {{ "{{ $labels.route }}" }}, {{ "{{ $value | humanizePercentage }}" }} get a 5xx.
  - alert: CloudachSlowFirstToken
    expr: |
      histogram_quantile(0.95, sum by (model, le) (rate(cloudach_time_to_first_token_seconds_bucket{ {{- $ns -}} }[10m]))) > {{ $v.firstTokenSeconds }}
    for: 10m
    severity: warning
    summary: The first token of {{ "{{ $labels.model }}" }} takes {{ "{{ $value | humanizeDuration }}" }} (95th percentile).
  - alert: CloudachModelNotReady
    expr: sum(rate(cloudach_rejections_total{code="model_not_ready", {{ $ns }}}[5m])) > 0
    for: 10m
    severity: warning
    summary: Requests are refused because their model is not ready.
  {{- if .Values.gateway.watchModels }}
  - alert: CloudachModelsNotWatched
    expr: min by (pod) (cloudach_models_watched{ {{- $ns -}} }) == 0
    for: 5m
    severity: warning
    summary: The gateway {{ "{{ $labels.pod }}" }} is out of touch with the API server; it serves Models as last known.
  - alert: CloudachPodsNotWatched
    expr: min by (pod) (cloudach_endpoints_watched{ {{- $ns -}} }) == 0
    for: 5m
    severity: warning
    summary: The gateway {{ "{{ $labels.pod }}" }} does not hear which pods of Models are ready.
  {{- end }}
  - alert: CloudachOverloaded
    expr: sum(rate(cloudach_rejections_total{code="server_is_overloaded", {{ $ns }}}[5m])) > 0
    for: 5m
    severity: warning
    summary: Requests are refused because the service is overloaded.
  - alert: CloudachConnectionsRefused
    expr: sum by (pod) (rate(cloudach_connections_refused_total{ {{- $ns -}} }[5m])) > 0
    for: 5m
    severity: warning
    summary: The gateway {{ "{{ $labels.pod }}" }} has no room for more connections.
  - alert: CloudachRedisDegraded
    expr: max by (pod) (cloudach_redis_degraded{ {{- $ns -}} }) == 1
    for: 1m
    severity: critical
    summary: The gateway {{ "{{ $labels.pod }}" }} cannot reach Redis; keys that it has not seen are refused.
  - alert: CloudachRedisEvicts
    expr: max(cloudach_redis_evicts{ {{- $ns -}} }) == 1
    for: 5m
    severity: warning
    summary: Redis may evict keys and usage when its memory is full.
  - alert: CloudachManyFailovers
    expr: |
      sum by (model) (rate(cloudach_failovers_total{ {{- $ns -}} }[15m]))
        / sum by (model) (rate(cloudach_generations_total{ {{- $ns -}} }[15m])) > 0.05
    for: 15m
    severity: warning
    summary: Engines of {{ "{{ $labels.model }}" }} keep breaking off; {{ "{{ $value | humanizePercentage }}" }} of its answers move to another one.
  - alert: CloudachUnknownForm
    expr: sum by (model) (rate(cloudach_slow_path_streams_total{reason="unknown_form", {{ $ns }}}[15m])) > 0
    for: 15m
    severity: warning
    summary: The gateway does not know the form of chunks of {{ "{{ $labels.model }}" }}; its tokens cost more CPU time.
  - alert: CloudachTracesDropped
    expr: sum by (pod, reason) (rate(cloudach_traces_dropped_total{ {{- $ns -}} }[5m])) > 0
    for: 15m
    severity: warning
    summary: The gateway {{ "{{ $labels.pod }}" }} loses traces ({{ "{{ $labels.reason }}" }}).
  - alert: CloudachGatewayKilled
    expr: sum(increase(cloudach_lost_requests_total{ {{- $ns -}} }[15m])) > 0
    for: 0m
    severity: warning
    summary: Gateways were killed with requests running; about {{ "{{ $value | humanize }}" }} were billed as last noted.
  - alert: CloudachDrainStuck
    expr: max by (pod) (cloudach_draining{ {{- $ns -}} }) == 1
    for: {{ add (int .Values.gateway.drainSeconds) 60 }}s
    severity: warning
    summary: The gateway {{ "{{ $labels.pod }}" }} has been draining for longer than its deadline.
  {{- if .Values.controller.enabled }}
  - alert: CloudachControllerDown
    expr: absent(up{job="controller", {{ $ns }}} == 1)
    for: 5m
    severity: warning
    summary: No controller can be read; Models are served, but changes to them wait.
  {{- if include "cloudach.raystore" . }}
  - alert: CloudachRayStoreDown
    expr: min(cloudach_controller_gcs_store_up{ {{- $ns -}} } and on (pod) cloudach_controller_leader{ {{- $ns -}} } == 1) == 0
    for: 1m
    severity: critical
    summary: The store of Ray's state does not answer; heads that use it end, and engines ten minutes after them.
  - alert: CloudachRayStoreFull
    expr: |
      max(cloudach_controller_gcs_store_memory_bytes{ {{- $ns -}} })
        / (max(cloudach_controller_gcs_store_memory_limit_bytes{ {{- $ns -}} }) > 0) > 0.8
    for: 5m
    severity: warning
    summary: The store of Ray's state is {{ "{{ $value | humanizePercentage }}" }} full; heads end when it is.
  {{- end }}
  {{- end }}
{{- end -}}
