{{/* Ports of a URI, as a NetworkPolicy writes them: (list uri port-of-the-scheme) */}}
{{- define "homeward.uriPort" -}}
{{- $host := regexReplaceAll "^[a-z0-9+]+://([^/?#]*@)?([^/?#]*).*$" (index . 0) "${2}" -}}
{{- $found := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- $found | default (toString (index . 1)) -}}
{{- end -}}

{{/* Ports of all stores, without doubles, as JSON. */}}
{{- define "homeward.storePorts" -}}
{{- $v := .Values -}}
{{- $ports := list
  (include "homeward.uriPort" (list $v.catalogue.uri 5432))
  (include "homeward.uriPort" (list $v.gallery.uri (ternary 443 80 (hasPrefix "https" $v.gallery.uri))))
  (include "homeward.uriPort" (list $v.photos.uri (ternary 443 80 $v.photos.secure)))
-}}
{{- toJson (uniq $ports) -}}
{{- end -}}

{{/* One egress rule: (list peers ports); no peers: any address. */}}
{{- define "homeward.egress" -}}
- ports:
    {{- range index . 1 }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
  {{- with index . 0 }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "homeward.dnsEgress" -}}
- ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
  {{- with .Values.networkPolicy.dns }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Head of a policy for one component: (list context component) */}}
{{- define "homeward.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "homeward.name" (index . 0) }}-{{ index . 1 }}
  labels: {{- include "homeward.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "homeward.podSelector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}
