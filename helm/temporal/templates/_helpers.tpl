{{- define "temporal.frontend" -}}
{{ include "common.name" . }}-frontend
{{- end }}

{{- define "temporal.web" -}}
{{ include "common.name" . }}-web
{{- end }}

{{/*
The server for the command line program. Without passthrough gRPC asks the DNS for more than the address (_grpclb,
_grpc_config), and where no DNS outside the cluster answers that takes longer than the program waits.
*/}}
{{- define "temporal.target" -}}
passthrough:///{{ include "temporal.frontend" . }}:{{ ternary .Values.external.port 7233 (eq .Values.engine "external") }}
{{- end }}

{{- define "temporal.secret" -}}
{{ .Values.database.existingSecret | default (printf "%s-database" (include "common.name" .)) }}
{{- end }}

{{- define "temporal.password" -}}
{{- with .Values.database -}}
{{- include "common.known" (list .password .from.namespace .from.secret "password") -}}
{{- end -}}
{{- end }}

{{/* Contents of the Secret with the login of the database. */}}
{{- define "temporal.login" -}}
{{- $password := include "temporal.password" . }}
{{- if and (not $password) (lookup "v1" "Namespace" "" .Release.Namespace) }}
{{- fail (printf "no password for PostgreSQL: Secret %s is not in namespace %s. Install release postgresql first, or set database.password or database.existingSecret" .Values.database.from.secret .Values.database.from.namespace) }}
{{- end }}
type: kubernetes.io/basic-auth
stringData:
  username: {{ .Values.database.username | quote }}
  password: {{ $password | quote }}
{{- end }}

{{/* How temporal-sql-tool reaches the database. Call: (list $ secret) */}}
{{- define "temporal.sqlTool" -}}
{{- $secret := index . 1 }}
{{- with (index . 0).Values.database -}}
- name: SQL_PLUGIN
  value: postgres12
- name: SQL_HOST
  value: {{ .host | quote }}
- name: SQL_PORT
  value: {{ .port | quote }}
- name: SQL_TLS
  value: {{ .tls | quote }}
{{ include "temporal.fromSecret" (list "SQL_USER" $secret "username") }}
{{ include "temporal.fromSecret" (list "SQL_PASSWORD" $secret "password") }}
{{- end }}
{{- end }}

{{/* One key of that Secret as a variable. Call: (list name secret key) */}}
{{- define "temporal.fromSecret" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end }}
