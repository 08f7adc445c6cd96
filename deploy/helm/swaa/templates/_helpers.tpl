{{- define "swaa.name" -}}
{{- if contains "swaa" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-swaa{{ end }}
{{- end }}

{{- define "swaa.selector" -}}
app.kubernetes.io/name: swaa
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "swaa.gatewaySelector" -}}
app.kubernetes.io/name: swaa-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "swaa.common" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "swaa.labels" -}}
{{ include "swaa.selector" . }}
{{ include "swaa.common" . }}
{{- end }}

{{- define "swaa.gatewayLabels" -}}
{{ include "swaa.gatewaySelector" . }}
{{ include "swaa.common" . }}
{{- end }}

{{- define "swaa.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default (printf "%s%s" $.Chart.AppVersion (ternary "-cuda" "" $.Values.gpu.enabled)) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The server's configuration: the values', and where experiments are kept. */}}
{{- define "swaa.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if .Values.experiments.enabled }}
{{- $storage := dict "path" "/var/lib/swaa/experiments.db" "key_file" "/etc/swaa-experiments/experiment.key" }}
{{- $_ := set $config "experiment_storage" (mergeOverwrite $storage (get $config "experiment_storage" | default dict)) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- /* Changes when pods must be replaced: what the server reloads by itself is left out. */}}
{{- define "swaa.restart" -}}
{{- omit (include "swaa.config" . | fromYaml) "recipes" "default_recipe" "experiments" "shadow" | toJson | sha256sum }}
{{- end }}

{{- define "swaa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "swaa.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- /* How a kubelet asks for a service's health: (list root service). Its gRPC probes speak no TLS: then
the server's own program asks, and where clients must show a certificate shows the server's. */}}
{{- define "swaa.probe" -}}
{{- $service := index . 1 }}
{{- if (index . 0).Values.tls.secret }}
exec:
  command:
    - /usr/bin/swaa
    - health
    - --tls-ca=/etc/swaa-tls/tls.crt
    - --tls-unverified
    {{- if not $service }}
    - --live
    - --timeout-seconds=14
    {{- end }}
    {{- if (index . 0).Values.tls.clientAuthority }}
    - --tls-certificate=/etc/swaa-tls/tls.crt
    - --tls-key=/etc/swaa-tls/tls.key
    {{- end }}
{{- else if $service }}
grpc: {port: 50051, service: {{ $service }}}
{{- else }}
grpc: {port: 50051}
{{- end }}
{{- end }}
