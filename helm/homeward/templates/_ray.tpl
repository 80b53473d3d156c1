{{/* The Ray that the image holds; a test compares it with the pinned one. */}}
{{- define "homeward.rayVersion" -}}2.60.0{{- end -}}

{{/* Where shards listen: above Ray's own ports, below those that the kernel hands out. */}}
{{- define "homeward.shardPorts" -}}20000-20099{{- end -}}

{{/* The same as a port of a NetworkPolicy. */}}
{{- define "homeward.shardPolicyPort" -}}
{{- $ports := splitList "-" (include "homeward.shardPorts" .) -}}
{ protocol: TCP, port: {{ first $ports }}, endPort: {{ last $ports }} }
{{- end -}}

{{/* Ray's own ports, none of them the shards': policies can tell them apart. */}}
{{- define "homeward.rayPorts" -}}
node-manager-port: "6380"
object-manager-port: "6381"
runtime-env-agent-port: "6382"
dashboard-agent-grpc-port: "6383"
dashboard-agent-listen-port: "8266"
min-worker-port: "10002"
max-worker-port: "19999"
{{- end -}}

{{- define "homeward.rayProbe" -}}
httpGet: { port: 8266, path: /api/local_raylet_healthz }
periodSeconds: 10
timeoutSeconds: 5
{{- end -}}

{{/* How large a log of Ray's becomes. Unless told so, Ray lets a worker's grow for ever, and a full /tmp evicts
the pod. */}}
{{- define "homeward.rayLogEnv" -}}
- { name: RAY_ROTATION_MAX_BYTES, value: "{{ . }}" }
- { name: RAY_ROTATION_BACKUP_COUNT, value: "2" }
{{- end -}}

{{/* Pod of the head or of a group: a dict of context, role (head, worker), gpus, and own, the values of it. */}}
{{- define "homeward.rayPod" -}}
{{- $ := .context -}}
{{- $isHead := eq .role "head" -}}
metadata:
  labels: {{- include "homeward.labels" (list $ "ray") | nindent 4 }}
spec:
  serviceAccountName: {{ include "homeward.name" $ }}-ray-{{ .role }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext: {{- include "homeward.podSecurity" $ | nindent 4 }}
  terminationGracePeriodSeconds: 60
  {{- include "homeward.pullSecrets" $ | nindent 2 }}
  {{- include "homeward.scheduling" .own | nindent 2 }}
  {{- with .own.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- if not $isHead }}
  topologySpreadConstraints: # replicas of a slot are on different nodes
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: { ray.io/cluster: {{ include "homeward.rayName" $ }}, ray.io/group: {{ .own.name | quote }} }
  {{- end }}
  containers:
    - name: ray-{{ .role }}
      image: {{ include "homeward.image" (list $ .gpus) | quote }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      securityContext: {{- include "homeward.containerSecurity" $ | nindent 8 }}
      env:
        {{- include "homeward.env" $ | nindent 8 }}
        # Said here as well as by KubeRay: an operator that does not know authOptions would leave Ray open.
        - { name: RAY_AUTH_MODE, value: token }
        - { name: RAY_USAGE_STATS_ENABLED, value: "0" }
        {{- include "homeward.rayLogEnv" 67108864 | nindent 8 }}
        {{- if $isHead }}
        {{- include "homeward.storeEnv" $ | nindent 8 }}
        {{- with $.Values.loadKeysSecret }}
        {{- if .name }}
        {{- include "homeward.secretEnv" (list "HOMEWARD_LOADS__S3_ACCESS_KEY" .name .accessKey) | nindent 8 }}
        {{- include "homeward.secretEnv" (list "HOMEWARD_LOADS__S3_SECRET_KEY" .name .secretKey) | nindent 8 }}
        {{- end }}
        {{- end }}
        {{- end }}
      ports:
        {{- if $isHead }}
        - { name: gcs-server, containerPort: 6379 }
        - { name: dashboard, containerPort: 8265 }
        - { name: client, containerPort: 10001 }
        {{- end }}
        - { name: metrics, containerPort: 8080 }
        - { name: homeward, containerPort: {{ $.Values.monitoring.metricsPort }} }
      startupProbe: {{- include "homeward.rayProbe" $ | nindent 8 }}
        failureThreshold: 30
      livenessProbe: {{- include "homeward.rayProbe" $ | nindent 8 }}
        failureThreshold: 12
      readinessProbe:
        {{- if $isHead }}
        httpGet: { port: 8265, path: /api/gcs_healthz }
        periodSeconds: 10
        timeoutSeconds: 5
        {{- else }}
        {{- include "homeward.rayProbe" $ | nindent 8 }}
        {{- end }}
      resources: {{- include "homeward.resources" (list .own.resources .gpus) | nindent 8 }}
      volumeMounts:
        {{- include "homeward.mounts" $ | nindent 8 }}
        - { name: scratch, mountPath: /var/lib/homeward/index }
        - { name: shared-memory, mountPath: /dev/shm }
        {{- if $.Values.ray.sources.existingClaim }}
        - { name: sources, mountPath: /sources, readOnly: true }
        {{- end }}
  volumes:
    {{- include "homeward.volumes" $ | nindent 4 }}
    - { name: config, configMap: { name: {{ include "homeward.name" $ }}-ray } }
    - { name: data, emptyDir: { sizeLimit: 1Gi } }
    - { name: shared-memory, emptyDir: { medium: Memory, sizeLimit: {{ $.Values.ray.sharedMemory }} } }
    {{- include "homeward.scratch" (list "scratch" $.Values.ray.scratch) | nindent 4 }}
    {{- with $.Values.ray.sources.existingClaim }}
    - { name: sources, persistentVolumeClaim: { claimName: {{ . | quote }}, readOnly: true } }
    {{- end }}
    {{- if and $isHead $.Values.ray.autoscaling.enabled }}
    - { name: autoscaler-tmp, emptyDir: { sizeLimit: 64Mi } }
    - name: autoscaler-token
      projected:
        sources:
          - serviceAccountToken: { path: token, expirationSeconds: 3600 }
          - configMap: { name: kube-root-ca.crt, items: [{ key: ca.crt, path: ca.crt }] }
          - downwardAPI: { items: [{ path: namespace, fieldRef: { fieldPath: metadata.namespace } }] }
    {{- end }}
{{- end -}}

{{/* A RayJob on the release's cluster: a dict of context, name, component, entrypoint. */}}
{{- define "homeward.rayJob" -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {{ .name }}
  labels: {{- include "homeward.labels" (list .context .component) | nindent 4 }}
spec:
  clusterSelector: { ray.io/cluster: {{ include "homeward.rayName" .context }} }
  # The operator submits it: no pod more that has the token.
  submissionMode: HTTPMode
  entrypoint: {{ .entrypoint | quote }}
{{- end -}}

{{/* A word of a shell's command line, whatever it holds. */}}
{{- define "homeward.shellWord" -}}
{{- printf "'%s'" (replace "'" "'\\''" .) -}}
{{- end -}}
