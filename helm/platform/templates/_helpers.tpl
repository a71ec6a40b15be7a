{{- define "platform.secret" -}}
{{ .Values.existingSecret | default (printf "%s-env" (include "common.name" .)) }}
{{- end }}

{{- define "platform.missing" -}}
{{- fail (printf "no %s: Secret %s is not in namespace %s. Install that release first, or set %s or existingSecret" (index . 0) (index . 1).secret (index . 1).namespace (index . 2)) }}
{{- end }}

{{- define "platform.signing" -}}
{{ .Values.signing.existingSecret | default (printf "%s-signing" (include "common.name" .)) }}
{{- end }}

{{/* Backend and worker have the key, trainings do not. */}}
{{- define "platform.signingKey" -}}
- name: TRAINING_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "platform.signing" . }}
      key: TRAINING_KEY
{{- end }}

{{/* The Secret with what is called at the end of a training; empty where nothing is. */}}
{{- define "platform.notify" -}}
{{ .Values.notify.existingSecret | default (ternary "" (printf "%s-notify" (include "common.name" .)) (empty .Values.notify.target)) }}
{{- end }}

{{/* The names by which browsers and other pods may call a part; every other one is refused (DNS rebinding). */}}
{{- define "platform.hosts" -}}
{{- $root := index . 0 }}
{{- $service := printf "%s-%s" (include "common.name" $root) (index . 1) }}
{{- $namespace := $root.Release.Namespace }}
{{- $names := list $service (printf "%s.%s" $service $namespace) (printf "%s.%s.svc" $service $namespace) (printf "%s.%s.svc.cluster.local" $service $namespace) }}
{{- if and $root.Values.ingress.enabled (eq (index . 1) "frontend") }}
{{- $names = append $names $root.Values.ingress.host }}
{{- end }}
{{- if and $root.Values.route.enabled (eq (index . 1) "frontend") }}
{{- $names = append $names $root.Values.route.host }}
{{- end }}
- name: APP_ALLOWED_HOSTS
  value: {{ concat $names $root.Values.allowedHosts | join "," | quote }}
{{- end }}

{{/* The part of the contract that is secret. */}}
{{- define "platform.logins" -}}
{{- $cluster := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- $db := .Values.database }}
{{- $password := include "common.known" (list $db.password $db.from.namespace $db.from.secret "password") }}
{{- $redis := include "common.known" (list .Values.redis.password .Values.redis.from.namespace .Values.redis.from.secret "password") }}
{{- $from := .Values.storage.from }}
{{- $access := include "common.known" (list .Values.storage.accessKey $from.namespace $from.secret "username") }}
{{- $key := include "common.known" (list .Values.storage.secretKey $from.namespace $from.secret "password") }}
{{- if and $cluster (not $password) }}
{{- include "platform.missing" (list "password for PostgreSQL" $db.from "database.password") }}
{{- end }}
{{- if and $cluster (not $key) }}
{{- include "platform.missing" (list "key for the object store" $from "storage.secretKey") }}
{{- end }}
{{- $server := printf "postgresql://%s:%s@%s:%v" (include "common.quoted" $db.username) (include "common.quoted" $password) $db.host $db.port }}
type: Opaque
stringData:
  DATABASE_URL: {{ printf "%s/%s" $server $db.name | quote }}
  USER_DATABASE_URL: {{ printf "%s/%s" $server $db.usersName | quote }}
  REDIS_URL: {{ printf "redis://%s%s:%v/0" (ternary (printf ":%s@" (include "common.quoted" $redis)) "" (ne $redis "")) .Values.redis.host .Values.redis.port | quote }}
  EXTERNAL_STORAGE_ACCESS_KEY: {{ $access | quote }}
  EXTERNAL_STORAGE_SECRET_KEY: {{ $key | quote }}
  INTERNAL_STORAGE_ACCESS_KEY: {{ $access | quote }}
  INTERNAL_STORAGE_SECRET_KEY: {{ $key | quote }}
{{- end }}

{{/* The part of the contract that is not. */}}
{{- define "platform.addresses" -}}
TEMPORAL_HOST: {{ .Values.temporal.host | quote }}
TEMPORAL_NAMESPACE: {{ .Values.temporal.namespace | quote }}
EXTERNAL_STORAGE_ENDPOINT: {{ required "set storage.externalEndpoint" .Values.storage.externalEndpoint | quote }}
INTERNAL_STORAGE_ENDPOINT: {{ required "set storage.internalEndpoint" .Values.storage.internalEndpoint | quote }}
OBSERVABILITY_BACKENDS: {{ join "," .Values.observabilityBackends | quote }}
{{- if has "mlflow" .Values.observabilityBackends }}
MLFLOW_TRACKING_URI: {{ .Values.mlflow.trackingUri | quote }}
{{- end }}
{{- if has "clearml" .Values.observabilityBackends }}
CLEARML_API_HOST: {{ .Values.clearml.apiHost | quote }}
CLEARML_WEB_HOST: {{ .Values.clearml.webHost | quote }}
CLEARML_FILES_HOST: {{ .Values.clearml.filesHost | quote }}
{{- end }}
{{- with .Values.storage.bucketPrefix }}
STORAGE_BUCKET_PREFIX: {{ . | quote }}
{{- end }}
{{- if ne .Values.storage.region "us-east-1" }}
AWS_DEFAULT_REGION: {{ .Values.storage.region | quote }}
{{- end }}
{{- range $key, $value := .Values.env }}
{{ $key }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* Pods restart when the contract changes. */}}
{{- define "platform.checksum" -}}
{{- $logins := ternary "" (include "platform.logins" .) (ne .Values.existingSecret "") -}}
checksum/env: {{ printf "%s\n%s" (include "platform.addresses" .) $logins | sha256sum | trunc 16 | quote }}
{{- end }}

{{/* The whole contract as variables. */}}
{{- define "platform.env" -}}
envFrom:
  - configMapRef:
      name: {{ include "common.name" . }}-env
  - secretRef:
      name: {{ include "platform.secret" . }}
{{- end }}

{{- define "platform.backendImage" -}}
{{- include "common.reference" .Values.backend.image }}
{{- end }}

{{- define "platform.trainingNamespace" -}}
{{ .Values.training.namespace | default .Release.Namespace }}
{{- end }}

{{/* What the cluster wants of a training's pod: fields of infra.training.job_manifest.Pod. */}}
{{- define "platform.trainingPod" -}}
{{- with .Values.training }}
gpu_resource: {{ .gpu.resource }}
node_selector: {{ toJson .gpu.nodeSelector }}
tolerations: {{ toJson .gpu.tolerations }}
shared_memory: {{ .sharedMemory | quote }}
priority_class: {{ .priorityClassName | quote }}
{{- end }}
ca_config_map: {{ .Values.database.caConfigMap | quote }}
{{- end }}

{{/* Volumes and mounts of backend and worker. */}}
{{- define "platform.volumes" -}}
- name: tmp
  emptyDir: {}
{{- with .Values.database.caConfigMap }}
- name: postgresql-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}

{{- define "platform.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.database.caConfigMap }}
- name: postgresql-ca
  mountPath: /etc/postgresql-ca
  readOnly: true
{{- end }}
{{- end }}
