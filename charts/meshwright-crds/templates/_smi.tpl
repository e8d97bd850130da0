{{/* The beginning of a definition of SMI, up to its versions. "root", "group", "kind", "plural", "short"; "converted" where
there are several versions: the manager says each in the other's words (docs/smi.md). */}}
{{- define "crds.smi" -}}
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  {{- include "crds.metadata" (dict "root" .root "name" (printf "%s.%s.smi-spec.io" .plural .group)) | nindent 2 }}
spec:
  group: {{ .group }}.smi-spec.io
  scope: Namespaced
  names:
    kind: {{ .kind }}
    listKind: {{ .kind }}List
    plural: {{ .plural }}
    singular: {{ lower .kind }}
    shortNames: [{{ .short }}]
    categories: [meshwright]
  {{- if .converted }}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig:
        # The manager fills in caBundle, as it does for its other webhook.
        service: {name: meshwright-manager, namespace: {{ .root.Values.managerNamespace }}, path: /convert, port: 443}
  {{- end }}
{{- end }}

{{/* What every version begins with; call with (dict "root" $ "version" "v1alpha1"). */}}
{{- define "crds.smiversion" -}}
name: {{ .version }}
served: true
storage: {{ eq .version "v1alpha4" }}
subresources:
  status: {}
{{- end }}

{{/* A name of an object, as the mesh takes it. */}}
{{- define "crds.reference" -}}
{type: string, maxLength: 63, pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'}
{{- end }}

{{- define "crds.port" -}}
{type: integer, minimum: 1, maximum: 65535}
{{- end }}
