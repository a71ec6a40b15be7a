{{/* Copied from helm/_common.tpl into every chart, so that each can be installed alone: nox -s update-docs. */}}

{{- define "common.name" -}}
{{ .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Labels that select pods. Call: include "common.selector" (list $ "component") */}}
{{- define "common.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of pods: without versions, so that a new chart restarts nothing that has not changed. */}}
{{- define "common.podLabels" -}}
{{ include "common.selector" . }}
app.kubernetes.io/part-of: platform
{{- end }}

{{/* All labels of an object. Call: include "common.labels" (list $ "component") */}}
{{- define "common.labels" -}}
{{- $root := index . 0 -}}
{{ include "common.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: platform
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") }}
{{- end }}

{{/* An image: a whole reference, else repository and tag. */}}
{{- define "common.reference" -}}
{{- if .ref }}{{ .ref }}{{ else -}}
{{ required "set the image's repository, or its ref" .repository }}:{{ required "set the image's tag, or its ref" .tag }}
{{- end }}
{{- end }}

{{/* Image and pull policy of a container. */}}
{{- define "common.image" -}}
image: {{ include "common.reference" . | quote }}
imagePullPolicy: {{ .pullPolicy | default "IfNotPresent" }}
{{- end }}

{{/* What every pod has. Call: include "common.pod" (list $ user) with a section that may hold scheduling as third. */}}
{{- define "common.pod" -}}
{{- $root := index . 0 -}}
{{- $user := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Replicas on different nodes, and where it can be in different zones. Call: include "common.spread" (list $ "component") */}}
{{- define "common.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: DoNotSchedule
    # Nodes that are drained or gone do not count.
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- include "common.selector" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "common.selector" . | nindent 8 }}
{{- end }}

{{/* Name of a Job that does something once: with other contents it is another Job. A Job cannot be changed, and so it is
     the same for helm, kubectl, Argo CD and Flux, which know no common order. Call: (list $ name contents) */}}
{{- define "common.once" -}}
{{ include "common.name" (index . 0) }}-{{ index . 1 }}-{{ index . 2 | sha256sum | trunc 8 }}
{{- end }}

{{/* What every container has. */}}
{{- define "common.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Before a pod is stopped: those who ask it must have heard that it goes. */}}
{{- define "common.drain" -}}
lifecycle:
  preStop:
    sleep: { seconds: {{ .Values.drainSeconds }} }
{{- end }}

{{/* Port of a Service with its NodePort where the type is NodePort. Call: (list service name port nodePort) */}}
{{- define "common.port" -}}
- name: {{ index . 1 }}
  port: {{ index . 2 }}
  targetPort: {{ index . 1 }}
  protocol: TCP
  {{- if and (eq (index . 0).type "NodePort") (index . 3) }}
  nodePort: {{ index . 3 }}
  {{- end }}
{{- end }}

{{/* What is known of a password: the value given, else the one in a Secret of the cluster, else nothing.
     `helm template` sees no cluster. Call: include "common.known" (list value namespace secret key) */}}
{{- define "common.known" -}}
{{- if index . 0 -}}
{{ index . 0 }}
{{- else -}}
{{- $secret := lookup "v1" "Secret" (index . 1) (index . 2) | default dict -}}
{{ index ($secret.data | default dict) (index . 3) | default "" | b64dec }}
{{- end -}}
{{- end }}

{{/* Text as part of a URL. */}}
{{- define "common.quoted" -}}
{{ . | urlquery | replace "+" "%20" }}
{{- end }}

{{/* PodDisruptionBudget of a component. Call: include "common.disruption" (list $ name component) */}}
{{- define "common.disruption" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "common.labels" (list $root (index . 2)) | nindent 4 }}
spec:
  maxUnavailable: {{ $root.Values.podDisruptionBudget.maxUnavailable }}
  # A pod that is broken anyway must not keep its node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "common.selector" (list $root (index . 2)) | nindent 6 }}
{{- end }}

{{/* NetworkPolicy of a component: these ports, from these peers. Call: (list $ name component ports) */}}
{{- define "common.network" -}}
{{- $root := index . 0 -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "common.labels" (list $root (index . 2)) | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "common.selector" (list $root (index . 2)) | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - from:
        {{- toYaml $root.Values.networkPolicy.from | nindent 8 }}
      ports:
        {{- range index . 3 }}
        - protocol: TCP
          port: {{ . }}
        {{- end }}
{{- end }}
