{{- define "mlflow.secret" -}}
{{ .Values.existingSecret | default (include "common.name" .) }}
{{- end }}

{{- define "mlflow.missing" -}}
{{- fail (printf "no %s: Secret %s is not in namespace %s. Install that release first, or set %s or existingSecret" (index . 0) (index . 1).secret (index . 1).namespace (index . 2)) }}
{{- end }}

{{/* Contents of the Secret. */}}
{{- define "mlflow.logins" -}}
{{- $cluster := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- $database := .Values.database }}
{{- $password := include "common.known" (list $database.password $database.from.namespace $database.from.secret "password") }}
{{- $artifacts := .Values.artifacts }}
{{- $key := include "common.known" (list $artifacts.secretKey $artifacts.from.namespace $artifacts.from.secret "password") }}
{{- if and $cluster (not $password) }}
{{- include "mlflow.missing" (list "password for PostgreSQL" $database.from "database.password") }}
{{- end }}
{{- if and $cluster (not $key) }}
{{- include "mlflow.missing" (list "key for the object store" $artifacts.from "artifacts.secretKey") }}
{{- end }}
type: Opaque
stringData:
  username: {{ $database.username | quote }}
  password: {{ $password | quote }}
  access-key: {{ include "common.known" (list $artifacts.accessKey $artifacts.from.namespace $artifacts.from.secret "username") | quote }}
  secret-key: {{ $key | quote }}
{{- end }}

{{/* One key of the Secret as a variable. Call: (list $ name key) */}}
{{- define "mlflow.fromSecret" -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ include "mlflow.secret" (index . 0) }}
      key: {{ index . 2 }}
{{- end }}

{{/* The names by which MLflow lets itself be called; those with a port count apart. */}}
{{- define "mlflow.hosts" -}}
{{- $name := include "common.name" . }}
{{- $space := .Release.Namespace }}
{{- $hosts := list "localhost" "127.0.0.1" $name (printf "%s.%s" $name $space) (printf "%s.%s.svc" $name $space) (printf "%s.%s.svc.cluster.local" $name $space) }}
{{- range $hosts }}{{ . }},{{ . }}:*,{{ end }}{{ join "," .Values.allowedHosts }}
{{- end }}
