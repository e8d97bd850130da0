{{/*
What the templates share. Names are fixed (meshwright-<part>), because the parts find one another by them; a part's own
template says what it runs and what it may do.
*/}}

{{- define "meshwright.labels" -}}
app.kubernetes.io/name: meshwright
app.kubernetes.io/component: {{ .part }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "meshwright.selector" -}}
app.kubernetes.io/name: meshwright
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "meshwright.metadata" -}}
name: meshwright-{{ .part }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "meshwright.labels" . | nindent 2 }}
{{- end }}

{{- define "meshwright.image" -}}
{{- with .root.Values.image -}}
{{ with .registry }}{{ . }}/{{ end }}{{ with .repository }}{{ . }}/{{ end }}{{ $.part }}:{{ .tag | default $.root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Image, pull policy and the rights that every container starts from: none. */}}
{{- define "meshwright.container" -}}
image: {{ include "meshwright.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- include "meshwright.rights" (.rights | default dict) | nindent 2 }}
{{- end }}

{{/* A container's rights: none, unless the caller names user and capabilities. */}}
{{- define "meshwright.rights" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: {{ .user | default 10001 | int }}
runAsGroup: {{ .group | default 10001 | int }}
{{- if .root }}
runAsNonRoot: false
{{- else }}
runAsNonRoot: true
{{- end }}
capabilities:
  drop: [ALL]
  {{- with .add }}
  add: {{ toJson . }}
  {{- end }}
{{- end }}

{{/* What all pods have in common; call with root, part, and placement (controlPlane or node). */}}
{{- define "meshwright.pod" -}}
serviceAccountName: meshwright-{{ .account | default .part }}
automountServiceAccountToken: {{ .api | default false }}
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .placement.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .placement.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .placement.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- if not .rooted }}
  runAsNonRoot: true
  {{- end }}
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* Replicas go to different nodes where there are several. */}}
{{- define "meshwright.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "meshwright.selector" . | nindent 8 }}
{{- end }}

{{/* Health is asked by a command in the container: its listeners speak mutual TLS, which a kubelet can't. */}}
{{- define "meshwright.probes" -}}
startupProbe:
  exec: {command: {{ toJson (list "meshwright-probe" .address .ready) }}}
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: 60
readinessProbe:
  exec: {command: {{ toJson (list "meshwright-probe" .address .ready) }}}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 3
livenessProbe:
  exec: {command: {{ toJson (list "meshwright-probe" .address .alive) }}}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 6  # minutes: a machine without breath isn't helped by restarts
{{- end }}

{{- define "meshwright.part.probes" -}}
{{- include "meshwright.probes" (dict "address" "unix:/run/health/health.sock" "ready" "/readyz" "alive" "/healthz") }}
{{- end }}

{{/* A pod that goes serves on until callers have heard of it: names are remembered for seconds by DNS and by proxies. The
grace holds this wait and a part's own end. */}}
{{- define "meshwright.farewell" -}}
lifecycle:
  preStop:
    exec: {command: [sleep, "15"]}
{{- end }}

{{- define "meshwright.grace" -}}
terminationGracePeriodSeconds: 45
{{- end }}

{{/* A Service's host name inside the cluster. */}}
{{- define "meshwright.host" -}}
meshwright-{{ .part }}.{{ .root.Release.Namespace }}.svc
{{- end }}

{{/* Arguments of every part of ours. */}}
{{- define "meshwright.arguments" -}}
- --trust-domain={{ .root.Values.trustDomain }}
- --log-level={{ .root.Values.logLevel }}
- --admin=unix:/run/health/health.sock
{{- if and .root.Values.collector.enabled (ne .part "collector") }}
- --otlp={{ include "meshwright.host" (dict "root" .root "part" "collector") }}:4317
{{- end }}
{{- end }}

{{/* How a part gets its identity: it shows its account's token at citadel's login port, which speaks mutual TLS by the
infrastructure CA. */}}
{{- define "meshwright.identity.arguments" -}}
{{- $citadel := include "meshwright.host" (dict "root" .root "part" "citadel") -}}
- --citadel={{ $citadel }}:8060
- --citadel-login={{ $citadel }}:8061
- --citadel-login-tls=/etc/meshwright/login
- --kubernetes-token=/run/meshwright-token/token
{{- end }}

{{- define "meshwright.identity.mount" -}}
- {name: login, mountPath: /etc/meshwright/login, readOnly: true}
- {name: token, mountPath: /run/meshwright-token, readOnly: true}
{{- end }}

{{- define "meshwright.identity.volume" -}}
{{ include "meshwright.certificate.volume" (dict "name" "login" "secret" "meshwright-login") }}
- name: token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {audience: meshwright-citadel, expirationSeconds: 3600, path: token}
{{- end }}

{{/* A certificate of the infrastructure CA, as a folder of the files that the parts' settings name. */}}
{{- define "meshwright.certificate.volume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - {key: tls.crt, path: cert.pem}
      - {key: tls.key, path: key.pem}
      - {key: ca.crt, path: ca.pem}
{{- end }}

{{- define "meshwright.store.arguments" -}}
- --etcd={{ include "meshwright.host" (dict "root" .root "part" "etcd") }}:2379
- --etcd-tls=/etc/meshwright/infrastructure
{{- end }}

{{- define "meshwright.bus.arguments" -}}
- --nats={{ include "meshwright.host" (dict "root" .root "part" "nats") }}:4222
- --nats-tls=/etc/meshwright/infrastructure
{{- end }}

{{- define "meshwright.infrastructure.mount" -}}
- {name: infrastructure, mountPath: /etc/meshwright/infrastructure, readOnly: true}
{{- end }}

{{- define "meshwright.infrastructure.volume" -}}
{{- include "meshwright.certificate.volume" (dict "name" "infrastructure" "secret" (printf "meshwright-%s-infrastructure" .part)) }}
{{- end }}

{{/* The only places that a part writes to: its health socket, and short-lived files. */}}
{{- define "meshwright.scratch.mounts" -}}
- {name: health, mountPath: /run/health}
- {name: scratch, mountPath: /tmp}
{{- end }}

{{- define "meshwright.scratch.volumes" -}}
- {name: health, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
- {name: scratch, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
{{- end }}

{{/* Values' `settings` of a part, as the environment that the part reads; call with part and settings. */}}
{{- define "meshwright.settings" -}}
{{- $prefix := printf "MESHWRIGHT_%s_" (.part | upper | replace "-" "_") }}
{{- range $name, $value := .settings }}
- {name: {{ $prefix }}{{ $name | upper | replace "-" "_" }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* A budget: of several replicas one at a time may be taken away. */}}
{{- define "meshwright.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "meshwright.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "meshwright.selector" . | nindent 6 }}
{{- end }}

{{- define "meshwright.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "meshwright.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- end }}
