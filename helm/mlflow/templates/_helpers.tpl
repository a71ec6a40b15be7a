{{/* The Secret with the login of the database, and the one with the keys of the object store. */}}
{{- define "mlflow.databaseSecret" -}}
{{ .Values.database.existingSecret | default (include "common.name" .) }}
{{- end }}

{{- define "mlflow.artifactsSecret" -}}
{{ .Values.artifacts.existingSecret | default (include "common.name" .) }}
{{- end }}

{{- define "mlflow.missing" -}}
{{- fail (printf "no %s: Secret %s is not in namespace %s. Install that release first, or set %s or existingSecret" (index . 0) (index . 1).secret (index . 1).namespace (index . 2)) }}
{{- end }}

{{/* What of the logins is in a Secret of this chart: those that no Secret of yours has; '' where yours have all. */}}
{{- define "mlflow.logins" -}}
{{- $cluster := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- $database := .Values.database }}
{{- $artifacts := .Values.artifacts }}
{{- if not $database.existingSecret }}
{{- $password := include "common.known" (list $database.password $database.from.namespace $database.from.secret "password") }}
{{- if and $cluster (not $password) }}
{{- include "mlflow.missing" (list "password for PostgreSQL" $database.from "database.password") }}
{{- end }}
username: {{ $database.username | quote }}
password: {{ $password | quote }}
{{- end }}
{{- if not (or $artifacts.existingSecret $artifacts.identity) }}
{{- $key := include "common.known" (list $artifacts.secretKey $artifacts.from.namespace $artifacts.from.secret "password") }}
{{- if and $cluster (not $key) }}
{{- include "mlflow.missing" (list "key for the object store" $artifacts.from "artifacts.secretKey") }}
{{- end }}
access-key: {{ include "common.known" (list $artifacts.accessKey $artifacts.from.namespace $artifacts.from.secret "username") | quote }}
secret-key: {{ $key | quote }}
{{- end }}
{{- end }}

{{/* One key of a Secret as a variable. Call: (list secret name key) */}}
{{- define "mlflow.fromSecret" -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 0 }}
      key: {{ index . 2 }}
{{- end }}

{{/* How its programs reach the database. */}}
{{- define "mlflow.database" -}}
{{- $secret := include "mlflow.databaseSecret" . }}
- name: PGHOST
  value: {{ .Values.database.host | quote }}
- name: PGPORT
  value: {{ .Values.database.port | quote }}
- name: PGDATABASE
  value: {{ .Values.database.name }}
- name: PGSSLMODE
  value: {{ .Values.database.sslmode }}
{{- if .Values.database.caConfigMap }}
- name: PGSSLROOTCERT
  value: /etc/postgresql-ca/ca.crt
{{- end }}
{{ include "mlflow.fromSecret" (list $secret "PGUSER" "username") }}
{{ include "mlflow.fromSecret" (list $secret "PGPASSWORD" "password") }}
- name: MLFLOW_SCHEMA
  value: {{ .Values.database.schema }}
- name: MLFLOW_DISABLE_TELEMETRY
  value: "true"
- name: HOME
  value: /tmp
- name: PYTHONDONTWRITEBYTECODE
  value: "1"
{{- end }}

{{- define "mlflow.volumes" -}}
# Artifacts pass through here on their way to the object store.
- name: tmp
  emptyDir: {}
{{- with .Values.database.caConfigMap }}
- name: postgresql-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}

{{- define "mlflow.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.database.caConfigMap }}
- name: postgresql-ca
  mountPath: /etc/postgresql-ca
  readOnly: true
{{- end }}
{{- end }}

{{/* The program files/database.py with a verb. Call: (list $ verb) */}}
{{- define "mlflow.program" -}}
command: [python, -c]
args:
  - |
    {{- (index . 0).Files.Get "files/database.py" | nindent 4 }}
  - {{ index . 1 }}
workingDir: /tmp
env:
  {{- include "mlflow.database" (index . 0) | nindent 2 }}
{{- end }}

{{- define "mlflow.schemaPod" -}}
metadata:
  labels:
    {{- include "common.podLabels" (list $ "schema") | nindent 4 }}
spec:
  {{- include "common.pod" (list $ .Values.runAsUser) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: schema
      {{- include "common.image" .Values.image | nindent 6 }}
      {{- include "common.container" . | nindent 6 }}
      {{- include "mlflow.program" (list $ "prepare") | nindent 6 }}
      resources:
        requests: { cpu: 50m, memory: 256Mi }
        limits: { cpu: "2", memory: 1536Mi }
      volumeMounts:
        {{- include "mlflow.mounts" . | nindent 8 }}
  volumes:
    {{- include "mlflow.volumes" . | nindent 4 }}
{{- end }}

{{/* The names by which MLflow lets itself be called; those with a port count apart. */}}
{{- define "mlflow.hosts" -}}
{{- $name := include "common.name" . }}
{{- $space := .Release.Namespace }}
{{- $hosts := list "localhost" "127.0.0.1" $name (printf "%s.%s" $name $space) (printf "%s.%s.svc" $name $space) (printf "%s.%s.svc.cluster.local" $name $space) }}
{{- range concat $hosts .Values.allowedHosts }}{{ . }},{{ . }}:*,{{ end }}
{{- end }}
