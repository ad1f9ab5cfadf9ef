{{- define "callmood.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "callmood.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "callmood.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "callmood.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "callmood.selector" -}}
app.kubernetes.io/name: {{ include "callmood.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "callmood.pageSelector" -}}
app.kubernetes.io/name: {{ include "callmood.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: page
{{- end }}

{{- define "callmood.webhooksSelector" -}}
app.kubernetes.io/name: {{ include "callmood.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhooks
{{- end }}

{{- define "callmood.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "callmood.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: callmood
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "callmood.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "callmood.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "callmood.image" -}}
{{- $repository := ternary .Values.image.repository (printf "%s/%s" .Values.image.registry .Values.image.repository) (empty .Values.image.registry) }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "callmood.modelPath" -}}
{{- if eq .Values.model.source "volume" }}{{ printf "/models/%s" (trimPrefix "/" .Values.model.path) | trimSuffix "/" }}
{{- else if eq .Values.model.source "hub" }}{{ .Values.model.path }}
{{- else }}demo-tiny
{{- end }}
{{- end }}

{{/* The drain timeout of the worker, in whole seconds. */}}
{{- define "callmood.drainSeconds" -}}
{{- ceil (dig "worker" "drain_timeout_s" 20.0 .Values.config) }}
{{- end }}

{{- define "callmood.port" -}}
{{- dig "worker" "health_port" 8080 .Values.config }}
{{- end }}

{{/* Settings as environment variables: those that the chart decides, and config. Lists are comma-separated. */}}
{{- define "callmood.settings" -}}
CALLMOOD_KAFKA__MEMBERSHIP: {{ .Values.membership }}
CALLMOOD_MODEL__PATH: {{ include "callmood.modelPath" . | quote }}
CALLMOOD_MODEL__DEVICE: {{ ternary "cuda" "cpu" .Values.gpu.enabled }}
CALLMOOD_WORKER__HEALTH_PORT: {{ include "callmood.port" . | quote }}
CALLMOOD_LOG__FORMAT: json
{{- if .Values.alertRules }}
CALLMOOD_ALERT__RULES_FILE: /etc/callmood/alerts.toml
{{- end }}
{{- range $group, $settings := .Values.config }}
{{- range $name, $value := $settings }}
{{- $variable := printf "CALLMOOD_%s__%s" (upper $group) (upper $name) }}
{{- if not (has $variable (list "CALLMOOD_WORKER__HEALTH_PORT")) }}
{{ $variable }}: {{ ternary (join "," $value) $value (kindIs "slice" $value) | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "callmood.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "callmood.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "callmood.env" -}}
- name: CALLMOOD_WORKER__NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: HOME
  value: /tmp
- name: HF_HOME
  value: /cache/huggingface
{{- if ne .Values.model.source "hub" }}
- name: HF_HUB_OFFLINE
  value: "1"
{{- end }}
{{- with .Values.model.tokenSecret }}
{{- if .name }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- range .Values.secretEnv }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "callmood.volumes" -}}
- name: tmp
  emptyDir: {}
- name: cache
  emptyDir:
    sizeLimit: {{ .Values.model.cacheSize }}
{{- if eq .Values.model.source "volume" }}
- name: models
  persistentVolumeClaim:
    claimName: {{ .Values.model.claimName }}
    readOnly: true
{{- end }}
{{- if .Values.tls.secretName }}
- name: tls
  secret:
    secretName: {{ .Values.tls.secretName }}
    defaultMode: 0440
{{- end }}
{{- if .Values.secretFiles.secretName }}
- name: secrets
  secret:
    secretName: {{ .Values.secretFiles.secretName }}
    defaultMode: 0440
{{- end }}
{{- if .Values.alertRules }}
- name: rules
  configMap:
    name: {{ include "callmood.fullname" . }}-rules
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "callmood.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: cache
  mountPath: /cache
{{- if eq .Values.model.source "volume" }}
- name: models
  mountPath: /models
  readOnly: true
{{- end }}
{{- if .Values.tls.secretName }}
- name: tls
  mountPath: /etc/callmood/tls
  readOnly: true
{{- end }}
{{- if .Values.secretFiles.secretName }}
- name: secrets
  mountPath: /etc/callmood/secrets
  readOnly: true
{{- end }}
{{- if .Values.alertRules }}
- name: rules
  mountPath: /etc/callmood/alerts.toml
  subPath: alerts.toml
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A container of the image with the worker's settings; `command` is its command. */}}
{{- define "callmood.container" -}}
image: {{ include "callmood.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ toJson .args }}
securityContext:
  {{- include "callmood.containerSecurity" .root | nindent 2 }}
envFrom:
  - configMapRef:
      name: {{ include "callmood.fullname" .root }}{{ .suffix | default "" }}
env:
  {{- include "callmood.env" .root | nindent 2 }}
volumeMounts:
  {{- include "callmood.mounts" .root | nindent 2 }}
{{- end }}

{{- define "callmood.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- if .Values.gpu.enabled }}
{{- $limits := merge (dict .Values.gpu.resource .Values.gpu.count) (default dict $resources.limits) }}
{{- $_ := set $resources "limits" $limits }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* Scheduling of a pod: toleration of the GPU taint, the values, and the topology spread. */}}
{{- define "callmood.placement" -}}
serviceAccountName: {{ include "callmood.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "callmood.podSecurity" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .Values.tolerations (and .Values.gpu.enabled .Values.gpu.tolerate) }}
tolerations:
  {{- if and .Values.gpu.enabled .Values.gpu.tolerate }}
  - key: {{ .Values.gpu.resource }}
    operator: Exists
    effect: NoSchedule
  {{- end }}
  {{- with .Values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- if and .Values.gpu.enabled .Values.gpu.runtimeClassName }}
runtimeClassName: {{ .Values.gpu.runtimeClassName }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
