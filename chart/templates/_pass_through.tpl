{{/* The ServiceAccount by which other servers know the metrics API. */}}
{{- define "vpn-operator.passThroughAccount" -}}
{{- .Values.metricsApi.passThrough.serviceAccountName | default (printf "%s-metrics-pass-through" .Release.Name) -}}
{{- end -}}

{{/* The servers that the metrics API asks for metrics that it does not know: the value that names it, its group, Service
     (NAMESPACE/NAME) and address, the volume with its certificate authorities, and these themselves if the chart keeps
     them. A list, as JSON. */}}
{{- define "vpn-operator.passThrough" -}}
{{- $all := list -}}
{{- range $value := list "custom" "external" -}}
{{- $other := get $.Values.metricsApi.passThrough $value -}}
{{- $service := $other.service -}}
{{- $path := printf "metricsApi.passThrough.%s" $value -}}
{{- if $service.name -}}
{{- if not (get $.Values.metricsApi $value) -}}
{{- fail (printf "\n\n%s is set, so metricsApi.%s must be true.\n" $path $value) -}}
{{- end -}}
{{- if not $service.namespace -}}
{{- fail (printf "\n\n%s.service needs a namespace.\n" $path) -}}
{{- end -}}
{{- if or (and (eq $service.name (include "vpn-operator.name" (list $ "metrics-api"))) (eq $service.namespace $.Release.Namespace)) (and (eq $service.name "kubernetes") (eq $service.namespace "default")) -}}
{{- fail (printf "\n\n%s.service must be another server: requests to Service %s/%s come back to the metrics API.\n" $path $service.namespace $service.name) -}}
{{- end -}}
{{- $ways := list -}}
{{- range $way := list "caBundle" "caSecret" "insecureSkipTLSVerify" -}}
{{- if get $other $way }}{{ $ways = append $ways $way }}{{ end -}}
{{- end -}}
{{- if ne (len $ways) 1 -}}
{{- fail (printf "\n\n%s needs one of caBundle, caSecret and insecureSkipTLSVerify, but has %s.\n" $path (join " and " $ways | default "none")) -}}
{{- end -}}
{{- $bundle := "" -}}
{{- $ca := dict -}}
{{- if $other.caBundle -}}
{{- $bundle = $other.caBundle | nospace | b64dec -}}
{{- if not (contains "-----BEGIN CERTIFICATE-----" $bundle) -}}
{{- fail (printf "\n\n%s.caBundle must be PEM in base64, as in an APIService.\n" $path) -}}
{{- end -}}
{{- $ca = dict "configMap" (dict "name" (printf "%s-metrics-pass-through-%s" $.Release.Name $value)) -}}
{{- else if $other.caSecret -}}
{{- $ca = dict "secret" (dict "secretName" $other.caSecret "items" (list (dict "key" "ca.crt" "path" "ca.crt"))) -}}
{{- end -}}
{{- $all = append $all (dict
    "value" $value
    "group" (printf "%s.metrics.k8s.io" $value)
    "service" (printf "%s/%s" $service.namespace $service.name)
    "address" (printf "https://%s.%s.svc:%v" $service.name $service.namespace $service.port)
    "ca" $ca
    "bundle" $bundle
) -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}
