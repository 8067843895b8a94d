{{/* The environment of a part. `extraEnv` replaces variables of the same name, because a name may occur only once.
     Takes (list $ part). */}}
{{- define "vpn-operator.env" -}}
{{- $ := index . 0 -}}
{{- $part := index . 1 -}}
{{- $env := list
    (dict "name" "POD_NAME" "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.name")))
    (dict "name" "POD_NAMESPACE" "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.namespace")))
    (dict "name" "METRICS_PORT" "value" "8080")
    (dict "name" "LOG_FORMAT" "value" $.Values.logging.format)
    (dict "name" "RUST_LOG" "value" $.Values.logging.level)
-}}
{{- if has $part (list "providers" "all") -}}
{{- $env = concat $env (include "vpn-operator.verifyEnv" $ | fromJsonArray) -}}
{{- end -}}
{{- if and (eq $part "all") (not $.Values.injection.enabled) -}}
{{- $env = append $env (dict "name" "INJECTION" "value" "false") -}}
{{- end -}}
{{- if eq $part "all" -}}
{{- $env = append $env (dict "name" "SERVERS" "value" (toString $.Values.servers.enabled)) -}}
{{- end -}}
{{- if and $.Values.servers.enabled (has $part (list "servers" "all")) -}}
{{- $env = append $env (dict "name" "OPENVPN_IMAGE" "value" $.Values.servers.image) -}}
{{- end -}}
{{- if eq $part "webhook" -}}
{{- $env = concat $env (include "vpn-operator.injectionEnv" $ | fromJsonArray) -}}
{{- end -}}
{{- if eq $part "metrics-api" -}}
{{- $env = concat $env (include "vpn-operator.metricsApiEnv" $ | fromJsonArray) -}}
{{- end -}}
{{- $extra := $.Values.extraEnv | default list -}}
{{- $taken := list -}}
{{- range $extra }}{{ $taken = append $taken .name }}{{ end -}}
{{- $kept := list -}}
{{- range $env }}{{ if not (has .name $taken) }}{{ $kept = append $kept . }}{{ end }}{{ end -}}
{{- toYaml (concat $kept $extra) -}}
{{- end -}}

{{/* The values for injection, as JSON. */}}
{{- define "vpn-operator.injectionEnv" -}}
{{- $injection := .Values.injection -}}
{{- $webhook := include "vpn-operator.name" (list . "webhook") -}}
{{- $own := empty $injection.certificate.secretName -}}
{{- $settings := list
    (list "WEBHOOK_PORT" "8443")
    (list "WEBHOOK_NAMES" ($own | ternary (printf "%s.%s.svc" $webhook .Release.Namespace) ""))
    (list "WEBHOOK_SECRET" ($injection.certificate.secretName | default $webhook))
    (list "WEBHOOK_CONFIGURATION" $webhook)
    (list "INJECTION_IMAGE" ($injection.image | default (.Values.verify.images | default dict).vpn))
    (list "INJECTION_RESOURCES" (empty $injection.resources | ternary "" (toJson $injection.resources)))
    (list "INJECTION_OUTBOUND_SUBNETS" (join "," ($injection.outboundSubnets | default list)))
-}}
{{- $env := list -}}
{{- range $settings -}}
{{- if index . 1 }}{{ $env = append $env (dict "name" (index . 0) "value" (index . 1)) }}{{ end -}}
{{- end -}}
{{- toJson $env -}}
{{- end -}}

{{/* The values for the metrics API, as JSON. */}}
{{- define "vpn-operator.metricsApiEnv" -}}
{{- $api := .Values.metricsApi -}}
{{- $name := include "vpn-operator.name" (list . "metrics-api") -}}
{{- $own := empty $api.certificate.secretName -}}
{{- $claims := list -}}
{{- range $api.claimableSlots -}}
{{- $labels := list -}}
{{- range $label, $value := . }}{{ $labels = append $labels (printf "%s=%v" $label $value) }}{{ end -}}
{{- $claims = append $claims (join "," $labels) -}}
{{- end -}}
{{- $settings := list
    (list "METRICS_API_PORT" "8444")
    (list "METRICS_API_CUSTOM" (ternary "true" "" $api.custom))
    (list "METRICS_API_EXTERNAL" (ternary "true" "" $api.external))
    (list "METRICS_API_CAPACITY" (ternary "true" "" $api.capacity))
    (list "METRICS_API_CLAIMS" (join ";" $claims))
    (list "METRICS_API_NAMES" ($own | ternary (printf "%s.%s.svc" $name .Release.Namespace) ""))
    (list "METRICS_API_SECRET" ($api.certificate.secretName | default $name))
-}}
{{- $others := include "vpn-operator.passThrough" . | fromJsonArray -}}
{{- range $others -}}
{{- $variable := printf "METRICS_API_PASS_THROUGH_%s" (upper .value) -}}
{{- $ca := empty .ca | ternary "" (printf "/etc/vpn-operator/pass-through/%s/ca.crt" .value) -}}
{{- $settings = concat $settings (list
    (list $variable .address)
    (list (printf "%s_CA" $variable) $ca)
    (list (printf "%s_INSECURE" $variable) (empty .ca | ternary "true" ""))
) -}}
{{- end -}}
{{- if $others -}}
{{- $settings = append $settings (list "METRICS_API_PASS_THROUGH_SERVICE_ACCOUNT" (include "vpn-operator.passThroughAccount" .)) -}}
{{- end -}}
{{- $env := list -}}
{{- range $settings -}}
{{- if index . 1 }}{{ $env = append $env (dict "name" (index . 0) "value" (index . 1)) }}{{ end -}}
{{- end -}}
{{- toJson $env -}}
{{- end -}}

{{/* The values for verification, as JSON. The operator has the defaults. */}}
{{- define "vpn-operator.verifyEnv" -}}
{{- $verify := .Values.verify -}}
{{- $images := $verify.images | default dict -}}
{{- $settings := list
    (list "VERIFY_VPN_IMAGE" $images.vpn)
    (list "VERIFY_INIT_IMAGE" $images.init)
    (list "VERIFY_PROBE_IMAGE" $images.probe)
    (list "VERIFY_IP_SERVICES" (join "," ($verify.ipServices | default list)))
    (list "VERIFY_TIMEOUT" $verify.timeout)
    (list "VERIFY_SCHEDULING_TIMEOUT" $verify.schedulingTimeout)
    (list "VERIFY_RESOURCES" (empty $verify.resources | ternary "" (toJson $verify.resources)))
-}}
{{- $env := list -}}
{{- range $settings -}}
{{- if index . 1 }}{{ $env = append $env (dict "name" (index . 0) "value" (index . 1)) }}{{ end -}}
{{- end -}}
{{- toJson $env -}}
{{- end -}}
