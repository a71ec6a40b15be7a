{{/* A component's claim. Call: (list section default) */}}
{{- define "observability.claim" -}}
{{ (index . 0).persistence.existingClaim | default (index . 1) }}
{{- end }}

{{/* PersistentVolumeClaim of a component. Call: (list $ section name component) */}}
{{- define "observability.volume" -}}
{{- $root := index . 0 }}
{{- with (index . 1).persistence }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ index $ 2 }}
  labels:
    {{- include "common.labels" (list $root (index $ 3)) | nindent 4 }}
  annotations:
    # `helm uninstall` leaves the data; the next installation of the same release takes them over.
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with .storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .size }}
{{- end }}
{{- end }}

{{/* The volume of a pod: a claim, else an empty directory. Call: (list section claim) */}}
{{- define "observability.data" -}}
- name: data
  {{- if (index . 0).persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ include "observability.claim" . }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}

{{/* Probes by HTTP. Call: (list path port) */}}
{{- define "observability.probes" -}}
startupProbe:
  httpGet: { path: {{ index . 0 }}, port: {{ index . 1 }} }
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 90
readinessProbe:
  httpGet: { path: {{ index . 0 }}, port: {{ index . 1 }} }
  periodSeconds: 10
  timeoutSeconds: 3
livenessProbe:
  tcpSocket: { port: {{ index . 1 }} }
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* Contents of the Secret of the exporters. */}}
{{- define "observability.logins" -}}
{{- $pg := .Values.postgresExporter }}
{{- $password := include "common.known" (list $pg.password $pg.from.namespace $pg.from.secret "password") }}
{{- if and (or $pg.enabled .Values.grafana.enabled) (not $pg.existingSecret) (not $password) (lookup "v1" "Namespace" "" .Release.Namespace) }}
{{- fail (printf "no password for PostgreSQL: Secret %s is not in namespace %s. Install release postgresql first, or set postgresExporter.password or postgresExporter.existingSecret" $pg.from.secret $pg.from.namespace) }}
{{- end }}
type: Opaque
stringData:
  username: {{ $pg.username | quote }}
  password: {{ $password | quote }}
  redis-password: {{ include "common.known" (list .Values.redisExporter.password .Values.redisExporter.from.namespace .Values.redisExporter.from.secret "password") | quote }}
{{- end }}
