{{- define "redis.service" -}}
{{ include "common.name" . }}-master
{{- end }}

{{- define "redis.secret" -}}
{{ .Values.auth.existingSecret | default (include "common.name" .) }}
{{- end }}

{{- define "redis.claim" -}}
{{ .Values.persistence.existingClaim | default (printf "data-%s" (include "common.name" .)) }}
{{- end }}

{{/* The password, for the server and for redis-cli. */}}
{{- define "redis.password" -}}
{{- if .Values.auth.enabled }}
- name: REDISCLI_AUTH
  valueFrom:
    secretKeyRef:
      name: {{ include "redis.secret" . }}
      key: password
{{- end }}
{{- end }}
