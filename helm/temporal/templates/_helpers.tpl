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
- name: HOME
  value: /tmp
- name: SQL_PLUGIN
  value: postgres12
- name: SQL_HOST
  value: {{ .host | quote }}
- name: SQL_PORT
  value: {{ .port | quote }}
- name: SQL_TLS
  value: {{ .tls | quote }}
{{- if .tls }}
{{- if .caConfigMap }}
- name: SQL_TLS_CA_FILE
  value: /etc/postgresql-ca/ca.crt
- name: SQL_TLS_SERVER_NAME
  value: {{ .host | quote }}
{{- else }}
- name: SQL_TLS_DISABLE_HOST_VERIFICATION
  value: "true"
{{- end }}
{{- end }}
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

{{/* Volumes and mounts of all that talk to the database: a place to write to, and the authority of its certificate. */}}
{{- define "temporal.volumes" -}}
- name: tmp
  emptyDir: {}
{{- with .Values.database.caConfigMap }}
- name: postgresql-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}

{{- define "temporal.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.database.caConfigMap }}
- name: postgresql-ca
  mountPath: /etc/postgresql-ca
  readOnly: true
{{- end }}
{{- end }}

{{/* Shell functions. `reached`: is the schema of database $1 at version $2 or newer? The tool would have to update it to
     the version of an empty folder otherwise, which fails without having changed anything. `tried` runs the tool, and ends
     the container where its login is refused for long: the next one gets the password that the Secret has by then. */}}
{{- define "temporal.reached" -}}
refused=0
tried() {
  if said=$("$@" 2>&1); then refused=0; return 0; fi
  case "$said" in
    *"password authentication failed"*) refused=$((refused + 1)) ;;
    *) refused=0 ;;
  esac
  if [ "$refused" -ge 20 ]; then echo "$said" >&2; exit 1; fi
  return 1
}
reached() {
  mkdir -p "$HOME/versions/$1/v$2"
  tried temporal-sql-tool --db "$1" update-schema --schema-dir "$HOME/versions/$1"
}
{{- end }}

{{- define "temporal.schemaPod" -}}
metadata:
  labels:
    {{- include "common.podLabels" (list $ "schema") | nindent 4 }}
spec:
  {{- include "common.pod" (list $ .Values.runAsUser) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: schema
      {{- include "common.image" .Values.adminTools.image | nindent 6 }}
      {{- include "common.container" . | nindent 6 }}
      command: [sh, -ec]
      args:
        # Both steps do nothing where the schema is up to date. The first one fails until the database is there.
        - |
          {{- include "temporal.reached" . | nindent 10 }}
          prepare() {
            until tried temporal-sql-tool --db "$1" setup-schema -v 0.0; do echo "waiting for database $1: $said"; sleep 1; done
            temporal-sql-tool --db "$1" update-schema --schema-name "postgresql/v12/$2"
            reached "$1" "$3" || { echo "the schema of $1 is older than $3, which the servers wait for" >&2; exit 1; }
          }
          prepare {{ .Values.database.name }} temporal {{ .Values.schema.temporal }}
          prepare {{ .Values.database.visibilityName }} visibility {{ .Values.schema.visibility }}
      env:
        {{- include "temporal.sqlTool" (list $ (include "temporal.secret" .)) | nindent 8 }}
      resources:
        requests: { cpu: 10m, memory: 32Mi }
        limits: { cpu: "1", memory: 256Mi }
      volumeMounts:
        {{- include "temporal.mounts" . | nindent 8 }}
  volumes:
    {{- include "temporal.volumes" . | nindent 4 }}
{{- end }}

{{- define "temporal.namespacesPod" -}}
metadata:
  labels:
    {{- include "common.podLabels" (list $ "namespaces") | nindent 4 }}
spec:
  {{- include "common.pod" (list $ .Values.runAsUser) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: namespaces
      {{- include "common.image" .Values.adminTools.image | nindent 6 }}
      {{- include "common.container" . | nindent 6 }}
      command: [sh, -ec]
      args:
        - |
          until temporal operator cluster health >/dev/null; do echo "waiting for $TEMPORAL_ADDRESS"; sleep 1; done
          {{- range .Values.namespaces }}
          temporal operator namespace describe --namespace {{ .name }} >/dev/null 2>&1 ||
            temporal operator namespace create --namespace {{ .name }} --retention {{ .retention }}
          {{- end }}
      env:
        - name: TEMPORAL_ADDRESS
          value: {{ include "temporal.target" . }}
        - name: HOME
          value: /tmp
      resources:
        requests: { cpu: 10m, memory: 32Mi }
        limits: { cpu: "1", memory: 256Mi }
      volumeMounts:
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: tmp
      emptyDir: {}
{{- end }}
