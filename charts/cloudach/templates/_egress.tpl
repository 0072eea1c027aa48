{{/* What pods of the platform reach, as lists of NetworkPolicyEgressRules. Each of these is YAML. */}}

{{/* KubeRay's operator, as peers of a NetworkPolicy. */}}
{{- define "cloudach.kuberay" -}}
{{- $v := .Values.networkPolicy -}}
{{- $pods := dict "matchLabels" (dict "app.kubernetes.io/component" "kuberay-operator") -}}
{{- $where := dict "matchLabels" (dict "kubernetes.io/metadata.name" $v.kuberayNamespace) -}}
{{- default (list (dict "namespaceSelector" $where "podSelector" $pods)) $v.kuberayFrom | toYaml -}}
{{- end -}}

{{/* Any address but those where clouds tell machines their credentials. Pods are named apart: for Cilium they have no address. */}}
{{- define "cloudach.anywhere" -}}
- ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16, 168.63.129.16/32, 100.100.100.200/32]}
- ipBlock: {cidr: "::/0", except: ["fe80::/10", "fd00:ec2::254/128", "64:ff9b::a9fe:0/112", "64:ff9b::a83f:8110/128", "64:ff9b::6464:64c8/128"]}
- namespaceSelector: {}
{{- end -}}

{{/* DNS, wherever: a cache on the node has an address of its own. */}}
{{- define "cloudach.toDns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
{{- end -}}

{{/*
Valkey, or a Redis of one's own: what the chart can know of it is a port. Without the URL it does not know that either, and
Sentinels and the nodes of a Redis Cluster tell ports that no URL has: any port then.
*/}}
{{- define "cloudach.toRedis" -}}
{{- if .Values.valkey.enabled -}}
- ports: [{port: 6379, protocol: TCP}]
  to:
    - podSelector:
        matchLabels:
          {{- include "cloudach.selectorLabels" (list . "valkey") | nindent 10 }}
{{- else if .Values.networkPolicy.egress.redis -}}
{{- toYaml .Values.networkPolicy.egress.redis -}}
{{- else -}}
{{- $ports := list 6379 6380 26379 -}}
{{- $data := (lookup "v1" "Secret" .Release.Namespace .Values.redis.existingSecret).data -}}
{{- $url := index (default dict $data) .Values.redis.existingSecretKey | default "" | b64dec -}}
{{- $hosts := regexReplaceAll "^[^/]*//([^/]*@)?" $url "" | regexFind "^[^/?]*" -}}
{{- range regexFindAll ":[0-9]{1,5}(,|$)" $hosts -1 -}}
{{- $ports = append $ports (regexFind "[0-9]+" . | int) -}}
{{- end -}}
- to:
    {{- include "cloudach.anywhere" . | nindent 4 }}
  {{- if regexMatch "^[a-z]+://" $url }}
  ports:
    {{- range uniq $ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/*
The upstreams of gateway.config.models. A name within the cluster may be a Service's, whose pods may listen on another port, so
every port of its namespace is open. An upstream from the environment is not known here: any port.
*/}}
{{- define "cloudach.toUpstreams" -}}
{{- $root := . -}}
{{- $rules := list -}}
{{- $anywhere := include "cloudach.anywhere" . | fromYamlArray -}}
{{- range .Values.gateway.config.models -}}
{{- range .upstreams -}}
{{- $parts := regexFind "^https?://(\\[[^]]*\\]|[^:/?#]*)(:[0-9]+)?" . -}}
{{- $port := regexFind ":[0-9]+$" $parts | trimPrefix ":" | default (ternary "443" "80" (hasPrefix "https:" .)) | int -}}
{{- $host := regexReplaceAll "^https?://(\\[[^]]*\\]|[^:/?#]*)(:[0-9]+)?$" $parts "${1}" | trimAll "[]" -}}
{{- $ports := list (dict "port" $port "protocol" "TCP") -}}
{{- if contains "${" . -}}
{{- $rules = append $rules (dict "to" $anywhere) -}}
{{- else if regexMatch "^[0-9.]+$|:" $host -}}
{{- $cidr := printf "%s/%s" $host (ternary "128" "32" (contains ":" $host)) -}}
{{- $to := list (dict "ipBlock" (dict "cidr" $cidr)) (dict "namespaceSelector" dict) -}}
{{- $rules = append $rules (dict "ports" $ports "to" $to) -}}
{{- else -}}
{{- $rules = append $rules (dict "ports" $ports "to" $anywhere) -}}
{{- $labels := splitList "." (trimSuffix "." $host) -}}
{{- if or (le (len $labels) 2) (eq (index $labels 2) "svc") -}}
{{- $namespace := $root.Release.Namespace -}}
{{- if gt (len $labels) 1 -}}{{- $namespace = index $labels 1 -}}{{- end -}}
{{- $where := dict "matchLabels" (dict "kubernetes.io/metadata.name" $namespace) -}}
{{- $rules = append $rules (dict "to" (list (dict "namespaceSelector" $where))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}
{{- uniq $rules | toYaml -}}
{{- end -}}
{{- end -}}

{{/* The pods of Models, wherever they are, on one port: (list port node-type); of all node types with "". */}}
{{- define "cloudach.toModels" -}}
- ports: [{port: {{ index . 0 }}, protocol: TCP}]
  to:
    - namespaceSelector: {}
      podSelector:
        matchExpressions:
          - {key: cloudach.dev/model, operator: Exists}
          {{- with index . 1 }}
          - {key: ray.io/node-type, operator: In, values: [{{ . }}]}
          {{- end }}
{{- end -}}

{{/* (list $ component): all rules of a component's pods. */}}
{{- define "cloudach.egress" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $out := $root.Values.networkPolicy.egress -}}
{{- $parts := list -}}
{{- if not (has $component (list "valkey" "raystore")) -}}{{- $parts = append $parts (include "cloudach.toDns" $root) -}}{{- end -}}
{{- if has $component (list "gateway" "first-key" "test") -}}{{- $parts = append $parts (include "cloudach.toRedis" $root) -}}{{- end -}}
{{- $asks := list "controller" "first-key" "delete-models" -}}
{{- if $root.Values.gateway.watchModels -}}{{- $asks = append $asks "gateway" -}}{{- end -}}
{{- if $root.Values.test.loseHead -}}{{- $asks = append $asks "test" -}}{{- end -}}
{{- if and (has $component $asks) $out.apiServer -}}{{- $parts = append $parts (toYaml $out.apiServer) -}}{{- end -}}
{{- if eq $component "gateway" -}}
{{- if $root.Values.gateway.watchModels -}}{{- $parts = append $parts (include "cloudach.toModels" (list 8000 "")) -}}{{- end -}}
{{- $parts = append $parts (include "cloudach.toUpstreams" $root) -}}
{{- else if eq $component "controller" -}}
{{- $parts = append $parts (include "cloudach.toModels" (list 8265 "head")) -}}
{{- if include "cloudach.raystore" $root -}}
{{- $store := dict "podSelector" (dict "matchLabels" (fromYaml (include "cloudach.selectorLabels" (list $root "raystore")))) -}}
{{- $ports := list (dict "port" 6379 "protocol" "TCP") -}}
{{- $parts = append $parts (toYaml (list (dict "ports" $ports "to" (list $store)))) -}}
{{- end -}}
{{- else if eq $component "test" -}}
{{- $gateways := dict "podSelector" (dict "matchLabels" (fromYaml (include "cloudach.selectorLabels" (list $root "gateway")))) -}}
{{- $ports := list (dict "port" 8000 "protocol" "TCP") (dict "port" 9090 "protocol" "TCP") -}}
{{- $parts = append $parts (toYaml (list (dict "ports" $ports "to" (list $gateways)))) -}}
{{- end -}}
{{- with index $out (ternary "valkey" $component (eq $component "raystore")) -}}{{- $parts = append $parts (toYaml .) -}}{{- end -}}
{{- without $parts "" | join "\n" -}}
{{- end -}}

{{/* (list $ component): what of a policy's spec is about egress, and that what has no rules for who comes in is closed. */}}
{{- define "cloudach.policyTypes" -}}
{{- if (index . 0).Values.networkPolicy.egress.enabled -}}
policyTypes: [Ingress, Egress]
{{- with include "cloudach.egress" . }}
egress:
  {{- . | nindent 2 }}
{{- end }}
{{- else -}}
policyTypes: [Ingress]
{{- end -}}
{{- end -}}
