{{/* The name that everything in the release begins with. */}}
{{- define "homeward.name" -}}
{{- .Values.fullnameOverride | default .Release.Name -}}
{{- end -}}

{{- define "homeward.rayName" -}}
{{- printf "%s-ray" (include "homeward.name" .) -}}
{{- end -}}

{{/* By what the release's pods are selected. Not app.kubernetes.io/name: KubeRay sets that one itself. */}}
{{- define "homeward.selector" -}}
app.kubernetes.io/part-of: homeward
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of an object: (list context component) */}}
{{- define "homeward.labels" -}}
{{- $ := index . 0 -}}
{{ include "homeward.selector" $ }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/name: homeward
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Selector of a component's pods: (list context component) */}}
{{- define "homeward.podSelector" -}}
{{ include "homeward.selector" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Image of a pod: (list context gpus) */}}
{{- define "homeward.image" -}}
{{- $ := index . 0 -}}
{{- $tag := $.Values.image.tag | default $.Chart.AppVersion -}}
{{- printf "%s:%s%s" $.Values.image.repository $tag (ternary $.Values.image.cudaSuffix "" (gt (int (index . 1)) 0)) -}}
{{- end -}}

{{/* "true" where stores are servers, not embedded. */}}
{{- define "homeward.hasStores" -}}
{{- if .Values.catalogue.uri -}}true{{- end -}}
{{- end -}}

{{/* "true" where the server can be reached from other pods. */}}
{{- define "homeward.hasTls" -}}
{{- if or .Values.server.tls.secretName .Values.server.tls.certManager.issuerName -}}true{{- end -}}
{{- end -}}

{{- define "homeward.tlsSecret" -}}
{{- .Values.server.tls.secretName | default (printf "%s-tls" (include "homeward.name" .)) -}}
{{- end -}}

{{/* Whole cores of a quantity, at least one: "1500m" is 2. Threads beyond a limit only wait for each other. */}}
{{- define "homeward.cores" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}
{{- max 1 (ceil (divf (float64 (trimSuffix "m" $text)) 1000)) -}}
{{- else -}}
{{- max 1 (ceil (float64 $text)) -}}
{{- end -}}
{{- end -}}
