{{- define "aop.name" -}}{{ printf "%s-aop" .Release.Name | trunc 52 | trimSuffix "-" }}{{- end -}}

{{- define "aop.selector" -}}
app.kubernetes.io/name: aop
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aop.labels" -}}
{{ include "aop.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "aop.secret" -}}
{{ .Values.token.existingSecret | default (printf "%s-token" (include "aop.name" .)) }}
{{- end -}}

{{/* The first pods by name, whatever their addresses are today; a node passes over its own. */}}
{{- define "aop.bootstrap" -}}
{{- $name := include "aop.name" . -}}
{{- $first := list -}}
{{- range $pod := until (int (min 3 .Values.replicas)) -}}
{{- $first = append $first (printf "/dns/%s-%d.%s-mesh.%s.svc.%s/tcp/7401" $name $pod $name $.Release.Namespace $.Values.clusterDomain) -}}
{{- end -}}
{{- concat $first .Values.bootstrap | join "," -}}
{{- end -}}

{{- define "aop.httpNames" -}}
{{- $name := include "aop.name" . -}}
{{- $service := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) -}}
{{- $service = append $service (printf "%s.%s.svc.%s" $name .Release.Namespace .Values.clusterDomain) -}}
{{- concat $service .Values.httpNames | join "," -}}
{{- end -}}
