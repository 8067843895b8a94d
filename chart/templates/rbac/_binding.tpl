{{/* The binding of a controller's ClusterRole. Takes (list $ controller). */}}
{{- define "vpn-operator.clusterRoleBinding" -}}
{{- $ := index . 0 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "vpn-operator.binding" . }}
  labels:
    {{- include "vpn-operator.labels" $ | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ printf "%s-%s" $.Release.Name (index . 1) }}
subjects:
  {{- include "vpn-operator.subjects" . | nindent 2 }}
{{- end -}}

{{/* Permissions that can be limited: a ClusterRole and its binding, or a Role in each of the namespaces.
     Takes (list $ controller suffix namespaces rules), the rules as text. */}}
{{- define "vpn-operator.boundedRole" -}}
{{- $ := index . 0 -}}
{{- $who := list $ (index . 1) -}}
{{- $suffix := index . 2 -}}
{{- $rules := index . 4 -}}
{{- $binding := printf "%s-%s" (include "vpn-operator.binding" $who) $suffix -}}
{{- $role := printf "%s-%s-%s" $.Release.Name (index . 1) $suffix -}}
{{- range (index . 3) | default (list "") }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "Role" "ClusterRole" (ne . "") }}
metadata:
  name: {{ $role }}
  {{- with . }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "vpn-operator.labels" $ | nindent 4 }}
rules:
  {{- $rules | trim | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "RoleBinding" "ClusterRoleBinding" (ne . "") }}
metadata:
  name: {{ $binding }}
  {{- with . }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "vpn-operator.labels" $ | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ ternary "Role" "ClusterRole" (ne . "") }}
  name: {{ $role }}
subjects:
  {{- include "vpn-operator.subjects" $who | nindent 2 }}
{{- end }}
{{- end -}}
