{{- define "postgresql.secret" -}}
{{ .Values.auth.existingSecret | default (include "common.name" .) }}
{{- end }}

{{- define "postgresql.claim" -}}
{{ .Values.persistence.existingClaim | default (printf "data-%s" (include "common.name" .)) }}
{{- end }}

{{/* How psql finds the server and logs in. */}}
{{- define "postgresql.client" -}}
- name: PGHOST
  value: {{ if eq .Values.engine "external" }}{{ .Values.external.host | quote }}{{ else }}{{ include "common.name" . }}{{ end }}
- name: PGPORT
  value: {{ ternary .Values.external.port 5432 (eq .Values.engine "external") | quote }}
- name: PGSSLMODE
  value: {{ ternary .Values.external.sslmode "prefer" (eq .Values.engine "external") }}
- name: PGDATABASE
  value: {{ .Values.auth.database }}
- name: PGCONNECT_TIMEOUT
  value: "5"
- name: PGUSER
  valueFrom:
    secretKeyRef:
      name: {{ include "postgresql.secret" . }}
      key: username
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "postgresql.secret" . }}
      key: password
{{- end }}
