{{/*
What must be so before anything is made. Each message says what to do.
*/}}
{{- define "cloudach.preflight" -}}
{{- $v := .Values -}}
{{- $name := include "cloudach.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $from := ternary "fullnameOverride" (ternary "nameOverride" "the release's name" (regexMatch "^[a-z]" .Release.Name)) (ne $v.fullnameOverride "") -}}
{{- fail (printf "\n\nObjects would be called %s-…, after %s: Services take a-z, 0-9 and - alone, and a letter first. Set fullnameOverride to such a name.\n" $name $from) -}}
{{- end -}}
{{- if and (not $v.valkey.enabled) (not $v.redis.existingSecret) -}}
{{- fail "\n\nCloudach needs a Redis or Valkey: leave valkey.enabled on, or name a Secret with the URL of yours in redis.existingSecret.\n" -}}
{{- end -}}
{{- if and $v.valkey.enabled $v.redis.existingSecret -}}
{{- fail "\n\nredis.existingSecret is set while valkey.enabled is on: set valkey.enabled to false to use your own Redis.\n" -}}
{{- end -}}
{{- if and (not $v.gateway.watchModels) (not $v.gateway.config.models) -}}
{{- fail "\n\nThe gateway would know no model: leave gateway.watchModels on, or list models in gateway.config.models.\n" -}}
{{- end -}}
{{- if and $v.models (not $v.controller.enabled) -}}
{{- fail "\n\nmodels are given while controller.enabled is off: nothing would serve them.\n" -}}
{{- end -}}
{{- if and (has "*" $v.watchNamespaces) (gt (len $v.watchNamespaces) 1) -}}
{{- fail "\n\nwatchNamespaces holds \"*\" and further names: \"*\" alone means all of them.\n" -}}
{{- end -}}
{{- $watched := (fromYaml (include "cloudach.watched" .)).namespaces -}}
{{- range $v.models -}}
{{- $namespace := default $.Release.Namespace .namespace -}}
{{- if and $watched (not (has $namespace $watched)) -}}
{{- fail (printf "\n\nmodels: %s is to be in the namespace %s, which watchNamespaces does not hold.\n" .name $namespace) -}}
{{- end -}}
{{- end -}}
{{- $away := (fromYaml (include "cloudach.away" .)).namespaces -}}
{{- range $v.models -}}
{{- if has (default $.Release.Namespace .namespace) $away -}}
{{- fail (printf "\n\nmodels: %s is to be in the namespace %s, which is not there or is being deleted: make it anew, or take this Model out of the values, and the namespace out of watchNamespaces.\n" .name .namespace) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.gateway.autoscaling.kind "keda") (not $v.gateway.autoscaling.triggers) -}}
{{- fail "\n\ngateway.autoscaling.kind is keda: list its triggers in gateway.autoscaling.triggers.\n" -}}
{{- end -}}
{{- if gt (int $v.gateway.autoscaling.minReplicas) (int $v.gateway.autoscaling.maxReplicas) -}}
{{- fail "\n\ngateway.autoscaling.minReplicas is above gateway.autoscaling.maxReplicas.\n" -}}
{{- end -}}
{{- if and $v.gatewayApi.enabled (not $v.gatewayApi.parentRefs) (not $v.gatewayApi.gateway.create) -}}
{{- fail "\n\ngatewayApi.enabled needs a Gateway: name yours in gatewayApi.parentRefs, or set gatewayApi.gateway.create.\n" -}}
{{- end -}}
{{- if and $v.gatewayApi.gateway.create (not $v.gatewayApi.gateway.className) -}}
{{- fail "\n\ngatewayApi.gateway.create needs gatewayApi.gateway.className.\n" -}}
{{- end -}}
{{- if and $v.ingress.tls.clusterIssuer $v.ingress.tls.issuer -}}
{{- fail "\n\ningress.tls.clusterIssuer and ingress.tls.issuer are both set: one of them issues the certificate.\n" -}}
{{- end -}}
{{- if $v.preflight -}}
{{- if and $v.controller.enabled $v.rbac.create -}}
{{- include "cloudach.alone" . -}}
{{- end -}}
{{- if $v.controller.enabled -}}
{{- include "cloudach.needs" (list $ "ray.io/v1/RayService" "KubeRay (1.7 or later)" "helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ --version 1.7.0 --namespace kuberay --create-namespace") -}}
{{- end -}}
{{- if or $v.controller.enabled $v.gateway.watchModels -}}
{{- include "cloudach.needs" (list $ "cloudach.dev/v1alpha1/Model" "Cloudach's CRD" "helm install cloudach-crds charts/cloudach-crds") -}}
{{- end -}}
{{- if $v.controller.enabled -}}
{{- include "cloudach.needs" (list $ "cloudach.dev/v1alpha1/ModelUse" "this version's CRDs" "helm upgrade --install cloudach-crds charts/cloudach-crds") -}}
{{- end -}}
{{- if and $v.controller.enabled $v.networkPolicy.enabled (not $v.networkPolicy.kuberayFrom) -}}
{{- include "cloudach.findKuberay" . -}}
{{- end -}}
{{- if eq $v.gateway.autoscaling.kind "keda" -}}
{{- include "cloudach.needs" (list $ "keda.sh/v1alpha1/ScaledObject" "KEDA (gateway.autoscaling.kind)" "see https://keda.sh") -}}
{{- end -}}
{{- if $v.gatewayApi.enabled -}}
{{- include "cloudach.needs" (list $ "gateway.networking.k8s.io/v1/HTTPRoute" "the Gateway API (gatewayApi.enabled)" "see https://gateway-api.sigs.k8s.io") -}}
{{- end -}}
{{- if $v.monitoring.serviceMonitor.enabled -}}
{{- include "cloudach.needs" (list $ "monitoring.coreos.com/v1/ServiceMonitor" "the Prometheus operator (monitoring.serviceMonitor.enabled)" "see https://prometheus-operator.dev") -}}
{{- end -}}
{{- if $v.monitoring.podMonitor.enabled -}}
{{- include "cloudach.needs" (list $ "monitoring.coreos.com/v1/PodMonitor" "the Prometheus operator (monitoring.podMonitor.enabled)" "see https://prometheus-operator.dev") -}}
{{- end -}}
{{- if $v.monitoring.prometheusRule.enabled -}}
{{- include "cloudach.needs" (list $ "monitoring.coreos.com/v1/PrometheusRule" "the Prometheus operator (monitoring.prometheusRule.enabled)" "see https://prometheus-operator.dev") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Fails when a controller of another release works on the Models of a namespace: the two would undo each other's work without
end. Only a namespace in which this release has no Role yet is looked at.
*/}}
{{- define "cloudach.alone" -}}
{{- $name := include "cloudach.fullname" . -}}
{{- $watched := (fromYaml (include "cloudach.watched" .)).namespaces -}}
{{- range ternary (list "") $watched (empty $watched) -}}
{{- $mine := "" -}}
{{- if . -}}{{- $mine = lookup "rbac.authorization.k8s.io/v1" "Role" . (printf "%s-controller" $name) -}}{{- end -}}
{{- $own := dig "metadata" "annotations" "meta.helm.sh/release-namespace" "" (default dict $mine) -}}
{{- if ne $own $.Release.Namespace -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "Role" . "").items -}}
{{- $labels := default dict .metadata.labels -}}
{{- $notes := default dict .metadata.annotations -}}
{{- $theirs := list (get $notes "meta.helm.sh/release-name") (get $notes "meta.helm.sh/release-namespace") -}}
{{- $controls := and (eq (get $labels "app.kubernetes.io/part-of") "cloudach") (hasSuffix "-controller" .metadata.name) -}}
{{- if and $controls (index $theirs 1) (ne (join "/" $theirs) (printf "%s/%s" $.Release.Name $.Release.Namespace)) -}}
{{- fail (printf "\n\nThe Models in the namespace %s are served by the release %s of the namespace %s already: two controllers would undo each other's work. Leave %s out of watchNamespaces of one of them.\n" .metadata.namespace (index $theirs 0) (index $theirs 1) .metadata.namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (list $ kind what how): fails when the cluster does not know the kind. */}}
{{- define "cloudach.needs" -}}
{{- $root := index . 0 -}}
{{- if not ($root.Capabilities.APIVersions.Has (index . 1)) -}}
{{- fail (printf "\n\nThis cluster does not know %s: install %s first.\n\n    %s\n\nWith `helm template`, which asks no cluster, add --api-versions %s or set preflight=false.\n" (index . 1) (index . 2) (index . 3) (index . 1)) -}}
{{- end -}}
{{- end -}}

{{/* Fails when KubeRay's operator is not where the policies let it in: no Model would start. Without a cluster to ask it passes. The
operator's own namespace comes first, because an installer may see nothing else. */}}
{{- define "cloudach.findKuberay" -}}
{{- $wanted := .Values.networkPolicy.kuberayNamespace -}}
{{- if and (not (include "cloudach.kuberaysIn" $wanted)) (lookup "v1" "Namespace" "" "default") -}}
{{- $why := "Ray's dashboard would be closed to it, and no Model would start" -}}
{{- with include "cloudach.kuberaysIn" "" -}}
{{- fail (printf "\n\nKubeRay's operator runs in the namespace %s, and networkPolicy.kuberayNamespace is %s: %s. Set networkPolicy.kuberayNamespace to its namespace.\n" . $wanted $why) -}}
{{- end -}}
{{- fail (printf "\n\nKubeRay's operator is not in the namespace %s: %s. No Deployment has pods with the label app.kubernetes.io/component=kuberay-operator. Name its namespace in networkPolicy.kuberayNamespace, or its pods in networkPolicy.kuberayFrom.\n" $wanted $why) -}}
{{- end -}}
{{- end -}}

{{/* The namespaces with an operator of KubeRay, joined; of one namespace, or of all with "". */}}
{{- define "cloudach.kuberaysIn" -}}
{{- $found := list -}}
{{- range (lookup "apps/v1" "Deployment" . "").items -}}
{{- if eq (dig "spec" "template" "metadata" "labels" "app.kubernetes.io/component" "" .) "kuberay-operator" -}}
{{- $found = append $found .metadata.namespace -}}
{{- end -}}
{{- end -}}
{{- $found | uniq | join ", " -}}
{{- end -}}
