{{- define "minio.secret" -}}
{{ .Values.auth.existingSecret | default (include "common.name" .) }}
{{- end }}

{{- define "minio.claim" -}}
{{ .Values.persistence.existingClaim | default (printf "data-%s" (include "common.name" .)) }}
{{- end }}

{{- define "minio.endpoint" -}}
{{- if eq .Values.engine "external" -}}
{{ required "engine external: set external.endpoint" .Values.external.endpoint }}
{{- else -}}
http://{{ include "common.name" . }}:9000
{{- end -}}
{{- end }}

{{/* Variables and container of a Job or test that speaks S3 by curl. */}}
{{- define "minio.client" -}}
- name: ENDPOINT
  value: {{ include "minio.endpoint" . | quote }}
- name: REGION
  value: {{ .Values.region }}
- name: BUCKETS
  value: {{ join " " .Values.buckets.names | quote }}
# Older curls sign a body, but do not send its checksum.
- name: UNSIGNED
  value: "x-amz-content-sha256: UNSIGNED-PAYLOAD"
- name: ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "minio.secret" . }}
      key: username
- name: SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "minio.secret" . }}
      key: password
{{- end }}

{{- define "minio.clientImage" -}}
{{- $own := .Values.buckets.image -}}
{{- include "common.image" (ternary $own .Values.image (or $own.ref $own.repository | empty | not)) -}}
{{- end }}

{{/* A signed request: s3 PATH [options of curl]. The keys go by standard input: a command line can be read by others. */}}
{{- define "minio.request" -}}
escaped() {
  text=$1
  while [ -n "$text" ]; do
    first=${text%"${text#?}"}
    text=${text#?}
    case $first in '"' | '\') printf '\\' ;; esac
    printf '%s' "$first"
  done
}
s3() {
  path=$1
  shift
  printf 'user = "%s:%s"\n' "$(escaped "$ACCESS_KEY")" "$(escaped "$SECRET_KEY")" |
    curl --config - --silent --show-error --max-time 10 --aws-sigv4 "aws:amz:$REGION:s3" "$@" "$ENDPOINT/$path"
}
{{- end }}

{{/* What makes the buckets. */}}
{{- define "minio.bucketsPod" -}}
metadata:
  labels:
    {{- include "common.podLabels" (list $ "buckets") | nindent 4 }}
spec:
  {{- include "common.pod" (list $ .Values.runAsUser) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: buckets
      {{- include "minio.clientImage" . | nindent 6 }}
      {{- include "common.container" . | nindent 6 }}
      command: [sh, -ec]
      args:
        - |
          {{- include "minio.request" . | nindent 10 }}
          status() { s3 "$@" --output /dev/null --write-out '%{http_code}' || true; }
          while case $(status "") in 000 | 5??) true ;; *) false ;; esac; do
            echo "waiting for $ENDPOINT"
            sleep 1
          done
          for bucket in $BUCKETS; do
            case $(status "$bucket" --head) in
              200) echo "bucket $bucket is there" ;;
              404)
                s3 "$bucket" --fail-with-body --request PUT
                {{- if ne .Values.region "us-east-1" }} --header "$UNSIGNED" --data \
                  "<CreateBucketConfiguration><LocationConstraint>$REGION</LocationConstraint></CreateBucketConfiguration>"
                {{- end }}
                echo "bucket $bucket made"
                ;;
              *)
                echo "bucket $bucket cannot be used:" >&2
                s3 "$bucket" >&2
                exit 1
                ;;
            esac
          done
      env:
        {{- include "minio.client" . | nindent 8 }}
      resources:
        requests: { cpu: 10m, memory: 16Mi }
        limits: { cpu: 500m, memory: 64Mi }
{{- end }}
