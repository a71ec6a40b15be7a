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
{{- if and (eq .Values.engine "external") .Values.external.caConfigMap }}
- name: PGSSLROOTCERT
  value: /etc/postgresql-ca/ca.crt
{{- end }}
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

{{/* Volumes and mounts of its clients. */}}
{{- define "postgresql.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if and (eq .Values.engine "external") .Values.external.caConfigMap }}
- name: postgresql-ca
  configMap:
    name: {{ .Values.external.caConfigMap }}
{{- end }}
{{- end }}

{{- define "postgresql.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if and (eq .Values.engine "external") .Values.external.caConfigMap }}
- name: postgresql-ca
  mountPath: /etc/postgresql-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "postgresql.databasesPod" -}}
metadata:
  labels:
    {{- include "common.podLabels" (list $ "databases") | nindent 4 }}
spec:
  {{- include "common.pod" (list $ .Values.runAsUser) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: databases
      {{- include "common.image" .Values.image | nindent 6 }}
      {{- include "common.container" . | nindent 6 }}
      command: [sh, -ec]
      args:
        - |
          until pg_isready -q; do echo "waiting for $PGHOST:$PGPORT"; sleep 1; done
          for name in {{ join " " .Values.databases }}; do
            psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="$name" <<'SQL'
          SELECT format('CREATE DATABASE %I', :'name')
          WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
          SQL
            echo "database $name is there"
          done
      env:
        {{- include "postgresql.client" . | nindent 8 }}
      resources:
        requests: { cpu: 10m, memory: 32Mi }
        limits: { cpu: 500m, memory: 128Mi }
      volumeMounts:
        {{- include "postgresql.mounts" . | nindent 8 }}
  volumes:
    {{- include "postgresql.volumes" . | nindent 4 }}
{{- end }}
