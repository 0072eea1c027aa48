{{/* The controller's configuration file: values' settings, and over them what the chart decides. In JSON,
which is YAML that every library reads alike: for some of them a plain `=` or `<<` is no string. */}}
{{- define "cloudach.controllerConfig" -}}
{{- $ray := dict "stream_limit_s" (int (include "cloudach.streamSeconds" .)) -}}
{{- $config := merge (deepCopy .Values.controller.config) (dict "ray" $ray) -}}
{{- $own := dict "listen" (dict "host" "0.0.0.0" "port" 8080) -}}
{{- $_ := set $own "kubernetes" (dict "namespaces" (fromYaml (include "cloudach.watched" .)).namespaces) -}}
{{- $_ := set $own "leader_election" (dict "enabled" true "namespace" .Release.Namespace "name" "cloudach-controller") -}}
{{- $_ := set $own "inference" (dict "image" (include "cloudach.image" (list . .Values.controller.inferenceImage))) -}}
{{- $_ := set $own "network_policy" (fromYaml (include "cloudach.modelPolicies" .)) -}}
{{- if include "cloudach.raystore" . -}}{{- $_ := set $own "gcs_store" (fromYaml (include "cloudach.raystoreSettings" .)) -}}{{- end -}}
{{- toPrettyJson (mergeOverwrite $config $own) -}}
{{- end -}}

{{/* What the controller makes NetworkPolicies of Models from. */}}
{{- define "cloudach.modelPolicies" -}}
{{- $v := .Values.networkPolicy -}}
{{- if $v.enabled -}}
{{- $release := dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace) -}}
{{- $peers := dict -}}
{{- range $component := list "gateway" "controller" -}}
{{- $pods := dict "matchLabels" (fromYaml (include "cloudach.selectorLabels" (list $ $component))) -}}
{{- $_ := set $peers $component (list (dict "namespaceSelector" $release "podSelector" $pods)) -}}
{{- end -}}
{{- $made := dict "enabled" true "gateways" $peers.gateway "controllers" $peers.controller -}}
{{- $made = merge $made (dict "kuberay" (include "cloudach.kuberay" . | fromYamlArray) "metrics" $v.metricsFrom "extra_ingress" $v.extraModelIngress) -}}
{{- $out := $v.egress -}}
{{- $egress := dict "egress" $out.enabled "also_closed" $out.alsoClosed "api_server" $out.apiServer "extra_egress" $out.extra -}}
{{- toYaml (merge $made $egress) -}}
{{- else -}}
enabled: false
{{- end -}}
{{- end -}}
