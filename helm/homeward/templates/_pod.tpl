{{- define "homeward.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "homeward.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Scheduling that operators set: a dict with nodeSelector, tolerations, affinity, priorityClassName. */}}
{{- define "homeward.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "homeward.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Resources of a container, with its GPUs: (list resources gpus) */}}
{{- define "homeward.resources" -}}
{{- $resources := deepCopy (index . 0) -}}
{{- if gt (int (index . 1)) 0 -}}
{{- $_ := set $resources.limits "nvidia.com/gpu" (toString (index . 1)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* A writable place for files that end with the pod: (list name {size, storageClass}) */}}
{{- define "homeward.scratch" -}}
{{- $place := index . 1 -}}
- name: {{ index . 0 }}
{{- if $place.storageClass }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {{ $place.storageClass }}
        resources: { requests: { storage: {{ $place.size }} } }
{{- else }}
  emptyDir: { sizeLimit: {{ $place.size }} }
{{- end }}
{{- end -}}

{{/* Volumes that servers and Ray's pods share, and where they are mounted. The root file system is read-only. */}}
{{- define "homeward.volumes" -}}
- { name: tmp, emptyDir: { sizeLimit: 4Gi } }
- { name: cache, emptyDir: { sizeLimit: 1Gi } }
{{- if .Values.trust.configMap }}
- { name: trust, configMap: { name: {{ .Values.trust.configMap | quote }} } }
{{- end }}
{{- if .Values.model.existingClaim }}
- { name: models, persistentVolumeClaim: { claimName: {{ .Values.model.existingClaim | quote }}, readOnly: true } }
{{- end }}
{{- end -}}

{{- define "homeward.mounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: cache, mountPath: /var/cache/homeward }
- { name: data, mountPath: /var/lib/homeward }
- { name: config, mountPath: /etc/homeward/config, readOnly: true }
{{- if .Values.trust.configMap }}
- { name: trust, mountPath: /etc/homeward/trust, readOnly: true }
{{- end }}
{{- if .Values.model.existingClaim }}
- { name: models, mountPath: /var/lib/homeward/models, readOnly: true }
{{- end }}
{{- end -}}
