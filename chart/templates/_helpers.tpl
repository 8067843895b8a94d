{{/* The parts of the operator: one Deployment per controller, or `all` for one Deployment. A list, as JSON. */}}
{{- define "vpn-operator.parts" -}}
{{- if .Values.combined.enabled -}}
["all"]
{{- else -}}
{{- $parts := list "masks" "providers" "reservations" "consumers" -}}
{{- if .Values.injection.enabled }}{{ $parts = append $parts "pods" }}{{ end -}}
{{- if .Values.servers.enabled }}{{ $parts = append $parts "servers" }}{{ end -}}
{{- toJson $parts -}}
{{- end -}}
{{- end -}}

{{/* The parts that serve requests and have no lease: all Pods of them work. A list, as JSON. */}}
{{- define "vpn-operator.serving" -}}
{{- $serving := list -}}
{{- if .Values.injection.enabled }}{{ $serving = append $serving "webhook" }}{{ end -}}
{{- $api := .Values.metricsApi -}}
{{- if or $api.custom $api.external $api.service }}{{ $serving = append $serving "metrics-api" }}{{ end -}}
{{- toJson $serving -}}
{{- end -}}

{{/* All Deployments: the controllers, and what serves requests. A list, as JSON. */}}
{{- define "vpn-operator.deployments" -}}
{{- toJson (concat (include "vpn-operator.parts" . | fromJsonArray) (include "vpn-operator.serving" . | fromJsonArray)) -}}
{{- end -}}

{{/* The APIServices of the metrics API, the preferred version first: name, group, version, priority, and the value that
     demands it. A list, as JSON. */}}
{{- define "vpn-operator.apiServices" -}}
{{- $all := list -}}
{{- range $served := list
    (list "custom" "custom.metrics.k8s.io" "v1beta2" 200)
    (list "custom" "custom.metrics.k8s.io" "v1beta1" 100)
    (list "external" "external.metrics.k8s.io" "v1beta1" 100)
-}}
{{- if get $.Values.metricsApi (index $served 0) -}}
{{- $name := printf "%s.%s" (index $served 2) (index $served 1) -}}
{{- $all = append $all (dict "value" (index $served 0) "group" (index $served 1) "version" (index $served 2) "priority" (index $served 3) "name" $name) -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{/* The values of a part that serves requests, as JSON. Takes (list $ part). */}}
{{- define "vpn-operator.servingValues" -}}
{{- $values := (index . 0).Values -}}
{{- toJson (eq (index . 1) "webhook" | ternary $values.injection $values.metricsApi) -}}
{{- end -}}

{{/* The number of Pods of a Deployment. Takes (list $ part). */}}
{{- define "vpn-operator.replicas" -}}
{{- $values := (index . 0).Values -}}
{{- $serving := include "vpn-operator.servingValues" . | fromJson -}}
{{- has (index . 1) (list "webhook" "metrics-api") | ternary $serving.replicas $values.replicas -}}
{{- end -}}

{{/* The name of a part: `{release}-{part}`. It is also the value of a label, which may have 63 characters.
     Takes (list $ part). */}}
{{- define "vpn-operator.name" -}}
{{- $release := (index . 0).Release.Name -}}
{{- $name := printf "%s-%s" $release (index . 1) -}}
{{- if gt (len $name) 63 -}}
{{- fail (printf "\n\nThe release name %q is too long: with it the label app=%s has %d characters, and Kubernetes allows 63.\nUse a release name of at most %d characters.\n" $release $name (len $name) (sub (len $release) (sub (len $name) 63))) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The values of a part, as JSON. Takes (list $ part). */}}
{{- define "vpn-operator.settings" -}}
{{- $values := (index . 0).Values -}}
{{- if eq (index . 1) "all" -}}
{{- toJson $values.combined -}}
{{- else if eq (index . 1) "metrics-api" -}}
{{- toJson $values.metricsApi -}}
{{- else if eq (index . 1) "webhook" -}}
{{- toJson (dict "resources" $values.injection.webhookResources "serviceAccountName" $values.injection.serviceAccountName) -}}
{{- else -}}
{{- toJson (index $values.controllers (index . 1)) -}}
{{- end -}}
{{- end -}}

{{/* The ServiceAccount of a part. Takes (list $ part). */}}
{{- define "vpn-operator.serviceAccount" -}}
{{- $settings := include "vpn-operator.settings" . | fromJson -}}
{{- $settings.serviceAccountName | default (include "vpn-operator.name" .) -}}
{{- end -}}

{{/* The part that runs a controller. Takes (list $ controller). */}}
{{- define "vpn-operator.partOf" -}}
{{- ternary "all" (index . 1) (and (index . 0).Values.combined.enabled (not (has (index . 1) (list "webhook" "metrics-api")))) -}}
{{- end -}}

{{/* Labels of all objects. */}}
{{- define "vpn-operator.labels" -}}
app.kubernetes.io/name: vpn-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of an object for the Prometheus Operator. prometheus.labels cannot replace the others. Takes (list $ app). */}}
{{- define "vpn-operator.prometheusLabels" -}}
{{- $root := index . 0 -}}
{{- $ours := include "vpn-operator.labels" $root | fromYaml | merge (dict "app" (index . 1)) -}}
{{- toYaml (merge $ours ($root.Values.prometheus.labels | default dict)) -}}
{{- end -}}

{{/* The subjects of the binding of a controller. Takes (list $ controller). */}}
{{- define "vpn-operator.subjects" -}}
{{- $part := include "vpn-operator.partOf" . -}}
- kind: ServiceAccount
  name: {{ include "vpn-operator.serviceAccount" (list (index . 0) $part) }}
  namespace: {{ (index . 0).Release.Namespace }}
{{- end -}}

{{/* The name of the binding of a controller. It differs when all controllers run in one process, because the role of a
     binding cannot change. Takes (list $ controller). */}}
{{- define "vpn-operator.binding" -}}
{{- $part := include "vpn-operator.partOf" . -}}
{{- include "vpn-operator.name" (list (index . 0) $part) -}}
{{- if ne $part (index . 1) }}-{{ index . 1 }}{{ end -}}
{{- end -}}

{{/* "true" unless the cluster does not serve a resource. Without a cluster (`helm template`), "true".
     Takes (list $ "group/version/Kind"). */}}
{{- define "vpn-operator.mayServe" -}}
{{- $apis := (index . 0).Capabilities.APIVersions -}}
{{- if or (not ($apis.Has "apps/v1/Deployment")) ($apis.Has (index . 1)) -}}
true
{{- end -}}
{{- end -}}

{{/* How the CustomResourceDefinition in the cluster compares to the one of this chart: `ours` (render it), `same`
     (not created by this release, but equal), `other` (different). Takes (list $ definition). */}}
{{- define "vpn-operator.crd" -}}
{{- $ := index . 0 -}}
{{- $crd := index . 1 -}}
{{- $live := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $crd.metadata.name -}}
{{- if not $live -}}
ours
{{- else -}}
{{- $annotations := $live.metadata.annotations | default dict -}}
{{- $release := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- if and (eq $release $.Release.Name) (eq $namespace $.Release.Namespace) -}}
ours
{{- else if eq (toJson $live.spec.versions) (toJson $crd.spec.versions) -}}
same
{{- else -}}
other
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The prefix of the names of metrics: METRICS_PREFIX in extraEnv, and an underscore. */}}
{{- define "vpn-operator.metricsPrefix" -}}
{{- $prefix := "vpno" -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "METRICS_PREFIX" -}}
{{- $prefix = .value | required "METRICS_PREFIX in extraEnv needs a value, because alerts and dashboards contain it" -}}
{{- end -}}
{{- end -}}
{{- $prefix }}_
{{- end -}}
