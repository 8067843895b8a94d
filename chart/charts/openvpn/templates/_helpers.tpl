{{/* The name of the OpenVPNServer, and of its Deployment and Service: `{release}-openvpn`, or `{release}` if that contains
     the name of the chart. */}}
{{- define "openvpn.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- $full = .Values.fullnameOverride | default (trunc 52 $full | trimSuffix "-") -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$" $full) -}}
{{- fail (printf "\n\n%q cannot be the name of an OpenVPNServer: 1 to 52 lowercase letters, digits and '-', beginning with a letter.\nUse another release name, or set fullnameOverride.\n" $full) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{/* Labels of all objects. The operator gives the Pods the same label `app`, whatever the name of the server is. */}}
{{- define "openvpn.labels" -}}
app: openvpn
release: {{ .Release.Name }}
app.kubernetes.io/name: openvpn
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A network in CIDR notation. Takes (list network mask values), the last two for messages. */}}
{{- define "openvpn.cidr" -}}
{{- $mask := toString (index . 1) -}}
{{- $bits := dict "255" 8 "254" 7 "252" 6 "248" 5 "240" 4 "224" 3 "192" 2 "128" 1 "0" 0 -}}
{{- $prefix := 0 -}}
{{- $ended := false -}}
{{- $octets := splitList "." $mask -}}
{{- $valid := eq (len $octets) 4 -}}
{{- range $octets -}}
{{- if or (not (hasKey $bits .)) (and $ended (ne . "0")) }}{{ $valid = false }}{{ end -}}
{{- if ne . "255" }}{{ $ended = true }}{{ end -}}
{{- $prefix = add $prefix (get $bits . | default 0) -}}
{{- end -}}
{{- if not $valid -}}
{{- fail (printf "\n\n%s must be a mask such as 255.255.0.0, not %q.\n" (index . 2) $mask) -}}
{{- end -}}
{{- printf "%s/%d" (index . 0) $prefix -}}
{{- end -}}

{{/* The lines of a configuration without comments and empty lines. A list, as JSON. */}}
{{- define "openvpn.lines" -}}
{{- $lines := list -}}
{{- range splitList "\n" (toString .) -}}
{{- $line := trim . -}}
{{- if and $line (not (hasPrefix "#" $line)) (not (hasPrefix ";" $line)) }}{{ $lines = append $lines $line }}{{ end -}}
{{- end -}}
{{- toJson $lines -}}
{{- end -}}

{{/* The lines for the server, as JSON. */}}
{{- define "openvpn.serverLines" -}}
{{- $conf := .Values.openvpn.conf | default "" -}}
{{- $serverConf := .Values.openvpn.serverConf | default "" -}}
{{- include "openvpn.lines" (printf "%s\n%s" $conf $serverConf) -}}
{{- end -}}

{{/* Fails if a value would open or lock the server otherwise than the old chart did. */}}
{{- define "openvpn.check" -}}
{{- if .Values.openvpn.iptablesExtra -}}
{{- fail "\n\nopenvpn.iptablesExtra is not supported: the operator makes the rules of the firewall. Clients reach spec.network.routes only\nif openvpn.redirectGateway is false.\n" -}}
{{- end -}}
{{- if (.Values.openvpn.istio | default dict).enabled -}}
{{- fail "\n\nopenvpn.istio is not supported: traffic of clients would bypass the proxy.\n" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.exporterService.enabled) -}}
{{- fail "\n\nserviceMonitor.enabled needs exporterService.enabled: a ServiceMonitor finds Services.\n" -}}
{{- end -}}
{{- end -}}

{{/* What is merged into the Pods, as JSON. */}}
{{- define "openvpn.pod" -}}
{{- $container := dict -}}
{{- with .Values.resources }}{{ $_ := set $container "resources" . }}{{ end -}}
{{- with .Values.service.hostPort -}}
{{- $port := dict "containerPort" (int $.Values.service.externalPort) "hostPort" (int .) "protocol" (include "openvpn.protocol" $) -}}
{{- $_ := set $container "ports" (list $port) -}}
{{- end -}}
{{- $spec := dict -}}
{{- if $container }}{{ $_ := set $spec "containers" (list (merge (dict "name" "openvpn") $container)) }}{{ end -}}
{{- with .Values.nodeSelector }}{{ $_ := set $spec "nodeSelector" . }}{{ end -}}
{{- with .Values.tolerations }}{{ $_ := set $spec "tolerations" . }}{{ end -}}
{{- with .Values.imagePullSecretName }}{{ $_ := set $spec "imagePullSecrets" (list (dict "name" .)) }}{{ end -}}
{{- $pod := dict -}}
{{- with .Values.podAnnotations }}{{ $_ := set $pod "metadata" (dict "annotations" .) }}{{ end -}}
{{- if $spec }}{{ $_ := set $pod "spec" $spec }}{{ end -}}
{{- toJson $pod -}}
{{- end -}}

{{/* UDP or TCP. */}}
{{- define "openvpn.protocol" -}}
{{- hasPrefix "udp" (lower .Values.openvpn.OVPN_PROTO) | ternary "UDP" "TCP" -}}
{{- end -}}
