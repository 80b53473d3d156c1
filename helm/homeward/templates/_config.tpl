{{/* A TOML file of sections: a dict of dicts. JSON's strings, numbers and lists are TOML's, too. */}}
{{- define "homeward.toml" -}}
{{- range $section, $settings := . }}
{{- if $settings }}
[{{ $section }}]
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}
{{- end -}}

{{/* What servers, shards and loads must agree on, over the settings of the values. */}}
{{- define "homeward.common" -}}
{{- $ := . -}}
{{- $own := dict
  "catalogue" (dict "uri" $.Values.catalogue.uri)
  "gallery" (dict "uri" $.Values.gallery.uri)
  "photos" (dict "uri" $.Values.photos.uri "region" $.Values.photos.region "secure" $.Values.photos.secure)
  "workers" (dict "bundle" $.Values.model.bundle)
  "telemetry" (dict "log_format" $.Values.logging.format "log_level" $.Values.logging.level)
  "index" (dict "where" $.Values.index.where "device" $.Values.index.device "replicas" $.Values.index.replicas
    "ports" (include "homeward.shardPorts" $)
    "shard_cpus" $.Values.index.shardCpus "shard_gpus" $.Values.index.shardGpus)
-}}
{{- mergeOverwrite (deepCopy $.Values.settings) $own | toJson -}}
{{- end -}}

{{- define "homeward.serverToml" -}}
{{- $ := . -}}
{{- $server := $.Values.server -}}
{{- $cores := int (include "homeward.cores" $server.resources.limits.cpu) -}}
{{- $listener := dict
  "address" (printf "127.0.0.1:%d" (int $server.port))
  "health_address" (printf "%s:%d" $server.listen 7444)
  "metrics_address" (printf "%s:%d" $server.listen (int $.Values.monitoring.metricsPort))
  "drain_s" $server.drainSeconds
  "max_connection_age_s" $server.connectionAgeSeconds
-}}
{{- if include "homeward.hasTls" $ -}}
{{- $_ := set $listener "address" (printf "%s:%d" $server.listen (int $server.port)) -}}
{{- $_ := set $listener "tls_certificate" "/etc/homeward/tls/tls.crt" -}}
{{- $_ := set $listener "tls_key" "/etc/homeward/tls/tls.key" -}}
{{- if $server.tls.clientCa.secretName -}}
{{- $_ := set $listener "tls_client_ca" (printf "/etc/homeward/client-ca/%s" $server.tls.clientCa.key) -}}
{{- end -}}
{{- end -}}
{{- $common := include "homeward.common" $ | fromJson -}}
{{- $threads := dict
  "workers" (dict "threads" $cores "decode_processes" $cores) "index" (dict "threads" $cores)
-}}
{{- include "homeward.toml" (mergeOverwrite $threads $common (dict "server" $listener)) -}}
{{- end -}}

{{/* For whoever drives something on Ray, and what it starts there. */}}
{{- define "homeward.rayToml" -}}
{{- $ := . -}}
{{- $common := omit (include "homeward.common" $ | fromJson) "server" -}}
{{- $loads := dict "loads" (dict "where" "ray" "ray" "auto") -}}
{{- $pages := dict "telemetry" (dict "metrics_address" (printf "%s:%d" $.Values.server.listen (int $.Values.monitoring.metricsPort))) -}}
{{- $threads := dict "index" (dict "threads" (int (include "homeward.cores" $.Values.index.shardCpus))) -}}
{{- include "homeward.toml" (mergeOverwrite $threads $common $loads $pages) -}}
{{- end -}}
