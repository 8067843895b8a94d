{{/* The spec of the OpenVPNServer, as JSON. */}}
{{- define "openvpn.spec" -}}
{{- $vpn := .Values.openvpn -}}
{{- $spec := dict
    "protocol" (include "openvpn.protocol" .)
    "port" (int .Values.service.externalPort)
    "service" (include "openvpn.service" . | fromJson)
    "network" (include "openvpn.network" . | fromJson)
-}}
{{- if not .Values.autoscaling.enabled }}{{ $_ := set $spec "replicas" (int .Values.replicaCount) }}{{ end -}}
{{- if .Values.enrollment.enabled }}{{ $_ := set $spec "serviceAccountName" (include "openvpn.fullname" .) }}{{ end -}}
{{- if .Values.ipForwardInitContainer }}{{ $_ := set $spec "ipForward" "InitContainer" }}{{ end -}}
{{- $server := list -}}
{{- range include "openvpn.serverLines" . | fromJsonArray -}}
{{- /* The exporter shows how full a replica is, so it has to know the limit. */ -}}
{{- if regexMatch "^max-clients\\s+[0-9]+$" . -}}
{{- $_ := set $spec "maxClients" (regexFind "[0-9]+" . | int) -}}
{{- else }}{{ $server = append $server . }}{{ end -}}
{{- end -}}
{{- $client := include "openvpn.lines" ($vpn.clientConf | default "") | fromJsonArray -}}
{{- $config := dict -}}
{{- with $server }}{{ $_ := set $config "server" . }}{{ end -}}
{{- with $client }}{{ $_ := set $config "client" . }}{{ end -}}
{{- with $config }}{{ $_ := set $spec "config" . }}{{ end -}}
{{- with $vpn.keystoreSecret }}{{ $_ := set $spec "pki" (dict "keystoreSecret" .) }}{{ end -}}
{{- with include "openvpn.pod" . | fromJson }}{{ $_ := set $spec "pod" . }}{{ end -}}
{{- toJson (mergeOverwrite $spec (deepCopy (.Values.spec | default dict))) -}}
{{- end -}}

{{/* spec.service, as JSON. */}}
{{- define "openvpn.service" -}}
{{- $values := .Values.service -}}
{{- $service := dict "type" $values.type -}}
{{- with $values.annotations }}{{ $_ := set $service "annotations" . }}{{ end -}}
{{- if and (eq $values.type "NodePort") $values.nodePort }}{{ $_ := set $service "nodePort" (int $values.nodePort) }}{{ end -}}
{{- with $values.loadBalancerSourceRanges -}}
{{- $ranges := kindIs "string" . | ternary (regexSplit "[, ]+" (toString .) -1) . -}}
{{- $_ := set $service "loadBalancerSourceRanges" $ranges -}}
{{- end -}}
{{- toJson $service -}}
{{- end -}}

{{/* spec.network, as JSON. */}}
{{- define "openvpn.network" -}}
{{- $vpn := .Values.openvpn -}}
{{- $clients := include "openvpn.cidr" (list $vpn.OVPN_NETWORK $vpn.OVPN_SUBNET "openvpn.OVPN_SUBNET") -}}
{{- $prefix := splitList "/" $clients | last | int -}}
{{- if or (lt $prefix 16) (gt $prefix 28) -}}
{{- fail (printf "\n\nopenvpn.OVPN_SUBNET must have 16 to 28 bits (255.255.0.0 to 255.255.255.240), not %d.\n" $prefix) -}}
{{- end -}}
{{- $routes := list -}}
{{- range list "POD" "SVC" -}}
{{- $network := get $vpn (printf "OVPN_K8S_%s_NETWORK" .) -}}
{{- $mask := get $vpn (printf "OVPN_K8S_%s_SUBNET" .) -}}
{{- if and $network $mask -}}
{{- $routes = append $routes (include "openvpn.cidr" (list $network $mask (printf "openvpn.OVPN_K8S_%s_SUBNET" .))) -}}
{{- end -}}
{{- end -}}
{{- $dns := dict -}}
{{- with $vpn.dnsServers }}{{ $_ := set $dns "servers" . }}{{ end -}}
{{- if $vpn.dhcpOptionDomain -}}
{{- $services := printf "svc.%s" $vpn.clusterDomain -}}
{{- $_ := set $dns "searchDomains" (list (printf "%s.%s" .Release.Namespace $services) $services $vpn.clusterDomain) -}}
{{- end -}}
{{- $network := dict "clients" $clients "routes" $routes "redirectGateway" (eq (toString $vpn.redirectGateway) "true") -}}
{{- with $dns }}{{ $_ := set $network "dns" . }}{{ end -}}
{{- toJson $network -}}
{{- end -}}
