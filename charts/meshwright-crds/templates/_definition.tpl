{{/* Metadata of a definition; call with (dict "root" $ "name" "PLURAL.GROUP"). */}}
{{- define "crds.metadata" -}}
name: {{ .name }}
labels:
  app.kubernetes.io/name: meshwright
  app.kubernetes.io/component: crds
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- if .root.Values.keepOnUninstall }}
annotations:
  helm.sh/resource-policy: keep
{{- end }}
{{- end }}

{{/* The columns that `kubectl get` shows of every kind beside its own. */}}
{{- define "crds.columns" -}}
- name: Accepted
  type: string
  description: Whether the mesh took the newest version of this object
  jsonPath: .status.conditions[?(@.type=="Accepted")].status
- name: Message
  type: string
  description: Why not, or what came of it
  priority: 1
  jsonPath: .status.conditions[?(@.type=="Accepted")].message
- name: Age
  type: date
  jsonPath: .metadata.creationTimestamp
{{- end }}

{{/* What the manager says back in every kind's status. */}}
{{- define "crds.status" -}}
type: object
description: What the mesh made of this object; written by the manager.
properties:
  observedGeneration:
    type: integer
    format: int64
    description: The generation of this object that the status is about.
  conditions:
    type: array
    maxItems: 16
    x-kubernetes-list-type: map
    x-kubernetes-list-map-keys: [type]
    items:
      type: object
      required: [type, status, lastTransitionTime, reason, message]
      properties:
        type: {type: string, maxLength: 316, description: "Accepted: whether the mesh took the object."}
        status: {type: string, enum: ["True", "False", "Unknown"]}
        observedGeneration: {type: integer, format: int64, minimum: 0}
        lastTransitionTime: {type: string, format: date-time}
        reason: {type: string, minLength: 1, maxLength: 1024}
        message: {type: string, maxLength: 32768}
{{- end }}

{{/* The metadata of every kind: the mesh's names are DNS labels, which Kubernetes' own rule is wider than. */}}
{{- define "crds.name" -}}
type: object
properties:
  name: {type: string, maxLength: 63, pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'}
{{- end }}

{{/* One definition of a kind that mixer owns. "root", "group", "version", "kind", "plural", "about"; "short", "column" with
"path", "scope" (Namespaced) where there are any; "spec" names the template of the schema. */}}
{{- define "crds.mixer" -}}
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  {{- include "crds.metadata" (dict "root" .root "name" (printf "%s.%s" .plural .group)) | nindent 2 }}
spec:
  group: {{ .group }}
  scope: {{ .scope | default "Namespaced" }}
  names:
    kind: {{ .kind }}
    listKind: {{ .kind }}List
    plural: {{ .plural }}
    singular: {{ lower .kind }}
    {{- with .short }}
    shortNames: [{{ . }}]
    {{- end }}
    categories: [meshwright]
  versions:
    - name: {{ .version }}
      served: true
      storage: true
      subresources:
        status: {}
      additionalPrinterColumns:
        {{- if .column }}
        - name: {{ .column }}
          type: string
          jsonPath: {{ .path }}
        {{- end }}
        {{- include "crds.columns" .root | nindent 8 }}
      schema:
        openAPIV3Schema:
          type: object
          description: {{ .about }}
          {{- if not .bare }}
          required: [spec]
          {{- end }}
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata:
              {{- include "crds.name" .root | nindent 14 }}
            spec:
              {{- include .spec .root | nindent 14 }}
            status:
              {{- include "crds.status" .root | nindent 14 }}
{{- end }}

{{/* A spec that mixer alone judges: what an adapter or a template takes is its own affair. */}}
{{- define "crds.open" -}}
type: object
nullable: true
x-kubernetes-preserve-unknown-fields: true
{{- end }}
