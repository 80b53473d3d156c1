{{/* What no schema can say: values that contradict each other, and names that lack. One message for all. */}}
{{- define "homeward.validate" -}}
{{- $v := .Values -}}
{{- $wrong := list -}}

{{- if gt (len (include "homeward.name" .)) 24 -}}
{{- $wrong = append $wrong "the release's name is longer than 24 characters, and KubeRay adds to it: set fullnameOverride" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" (include "homeward.name" .)) -}}
{{- $wrong = append $wrong "the release's name begins with a digit, and Services must not: set fullnameOverride" -}}
{{- end -}}
{{- if eq $v.image.tag "latest" -}}
{{- $wrong = append $wrong "image.tag is latest, which names another image every day: name a version" -}}
{{- end -}}

{{- $uris := dict "catalogue.uri" $v.catalogue.uri "gallery.uri" $v.gallery.uri "photos.uri" $v.photos.uri -}}
{{- $set := list -}}
{{- range $name, $uri := $uris -}}{{- if $uri -}}{{- $set = append $set $name -}}{{- end -}}{{- end -}}
{{- if and $set (lt (len $set) 3) -}}
{{- range $name, $uri := $uris -}}
{{- if not $uri -}}
{{- $wrong = append $wrong (printf "%s is empty while %s is set: stores are embedded all or none" $name (join " and " $set)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $hasStores := eq (len $set) 3 -}}
{{- $embedded := not $set -}}

{{- if $hasStores -}}
{{- if not $v.catalogue.passwordSecret.name -}}
{{- $wrong = append $wrong "catalogue.passwordSecret.name is empty: name the Secret with PostgreSQL's password" -}}
{{- end -}}
{{- if not $v.photos.keysSecret.name -}}
{{- $wrong = append $wrong "photos.keysSecret.name is empty: name the Secret with the S3 keys" -}}
{{- end -}}
{{- if and (ne $v.model.bundle "default") (not $v.model.existingClaim) -}}
{{- $wrong = append $wrong (printf "model.bundle is %s, and no pod keeps what is installed in it: name the claim with installed bundles in model.existingClaim" $v.model.bundle) -}}
{{- end -}}
{{- $isChecked := regexMatch "[?&]sslmode=verify-(ca|full)(&|$)" $v.catalogue.uri -}}
{{- if and $isChecked (not $v.trust.configMap) (not (regexMatch "[?&]sslrootcert=" $v.catalogue.uri)) -}}
{{- $wrong = append $wrong "catalogue.uri wants PostgreSQL's certificate checked, and no authority is named: set trust.configMap, or add sslrootcert=system for the public ones" -}}
{{- end -}}
{{- $log := $v.server.searchLog -}}
{{- $places := 0 -}}
{{- range list $log.existingClaim $log.size (ternary "true" "" $log.ephemeral) -}}{{- if . -}}{{- $places = add1 $places -}}{{- end -}}{{- end -}}
{{- if ne (int $places) 1 -}}
{{- $wrong = append $wrong "server.searchLog: set one of existingClaim, size (a claim is made) and ephemeral (the log of searches ends with each pod)" -}}
{{- end -}}
{{- end -}}

{{- if $embedded -}}
{{- if or (gt (int $v.server.replicas) 1) $v.server.autoscaling.enabled -}}
{{- $wrong = append $wrong "server.replicas: embedded stores belong to one server; several need catalogue.uri, gallery.uri and photos.uri, and no server.autoscaling without them" -}}
{{- end -}}
{{- if $v.ray.enabled -}}
{{- $wrong = append $wrong "ray.enabled: Ray's pods do not reach embedded stores; set catalogue.uri, gallery.uri and photos.uri" -}}
{{- end -}}
{{- end -}}

{{- if and $v.server.tls.secretName $v.server.tls.certManager.issuerName -}}
{{- $wrong = append $wrong "server.tls: set secretName or certManager.issuerName, not both" -}}
{{- end -}}
{{- if and (include "homeward.hasTls" .) $v.server.tls.clientCa.secretName (not $v.tests.clientSecret) -}}
{{- $wrong = append $wrong "tests.clientSecret is empty, and servers want clients' certificates (server.tls.clientCa): name one for `helm test`" -}}
{{- end -}}
{{- if not (include "homeward.hasTls" .) -}}
{{- if $v.server.tls.clientCa.secretName -}}
{{- $wrong = append $wrong "server.tls.clientCa needs a certificate of the servers': set server.tls.secretName or server.tls.certManager.issuerName" -}}
{{- end -}}
{{- if or (gt (int $v.server.replicas) 1) $v.server.autoscaling.enabled -}}
{{- $wrong = append $wrong "server.replicas: without server.tls servers listen on loopback, and several cannot be reached; set server.tls.secretName or server.tls.certManager.issuerName" -}}
{{- end -}}
{{- end -}}
{{- if and $v.server.autoscaling.enabled (gt (int $v.server.autoscaling.minReplicas) (int $v.server.autoscaling.maxReplicas)) -}}
{{- $wrong = append $wrong "server.autoscaling: minReplicas is greater than maxReplicas" -}}
{{- end -}}
{{- if eq (int $v.monitoring.metricsPort) (int $v.server.port) -}}
{{- $wrong = append $wrong "monitoring.metricsPort is server.port: choose another" -}}
{{- end -}}
{{- range $name, $port := dict "server.port" $v.server.port "monitoring.metricsPort" $v.monitoring.metricsPort -}}
{{- if eq (int $port) 7444 -}}
{{- $wrong = append $wrong (printf "%s is 7444, where health is asked for: choose another" $name) -}}
{{- end -}}
{{- end -}}

{{- if and (eq $v.index.where "server") (ne $v.index.device "cpu") (eq (int $v.server.gpus) 0) -}}
{{- $wrong = append $wrong (printf "index.device is %s, and no server asks for a GPU: set server.gpus" $v.index.device) -}}
{{- end -}}

{{- if eq $v.index.where "shards" -}}
{{- if and (ne $v.index.device "cpu") (eq (float64 $v.index.shardGpus) 0.0) -}}
{{- $wrong = append $wrong (printf "index.device is %s, and no shard asks for a GPU: set index.shardGpus" $v.index.device) -}}
{{- end -}}
{{- if $v.ray.enabled -}}
{{- $cores := 0 -}}
{{- range $v.ray.groups -}}{{- $cores = max $cores (include "homeward.cores" .resources.limits.cpu) -}}{{- end -}}
{{- if gt (float64 $v.index.shardCpus) (float64 $cores) -}}
{{- $wrong = append $wrong (printf "index.shardCpus is %v, and no pod of ray.groups has more than %d: no shard would start" $v.index.shardCpus $cores) -}}
{{- end -}}
{{- end -}}
{{- if not $v.ray.enabled -}}
{{- $wrong = append $wrong "index.where is shards, and shards run on Ray: set ray.enabled" -}}
{{- else if not $v.ray.gcsFaultTolerance.enabled -}}
{{- $wrong = append $wrong "index.where is shards: set ray.gcsFaultTolerance.enabled, else all shards end with Ray's head" -}}
{{- end -}}
{{- if not $v.index.tokenSecret.name -}}
{{- $wrong = append $wrong "index.tokenSecret.name is empty: name the Secret with the token between servers and shards" -}}
{{- end -}}
{{- if lt (int $v.index.shards) (int $v.index.replicas) -}}
{{- $wrong = append $wrong "index.shards is less than index.replicas: each replica of a slot is on a shard of its own" -}}
{{- end -}}
{{- end -}}

{{- if $v.ray.enabled -}}
{{- $fault := $v.ray.gcsFaultTolerance -}}
{{- if $fault.enabled -}}
{{- if not $fault.redisAddress -}}
{{- $wrong = append $wrong "ray.gcsFaultTolerance.redisAddress is empty: name a Redis, redis://redis.example:6379" -}}
{{- end -}}
{{- if not $fault.passwordSecret.name -}}
{{- $wrong = append $wrong "ray.gcsFaultTolerance.passwordSecret.name is empty: name the Secret with Redis' password" -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range $v.ray.groups -}}
{{- if has .name $names -}}
{{- $wrong = append $wrong (printf "ray.groups: there are two of the name %s" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- $wrong = append $wrong (printf "ray.groups, %s: minReplicas is greater than maxReplicas" .name) -}}
{{- end -}}
{{- if and (not $v.ray.autoscaling.enabled) (ne (int .minReplicas) (int .maxReplicas)) -}}
{{- $wrong = append $wrong (printf "ray.groups, %s: without ray.autoscaling minReplicas and maxReplicas are the same number" .name) -}}
{{- end -}}
{{- end -}}
{{- $loads := list -}}
{{- range $v.loads -}}
{{- if has .name $loads -}}
{{- $wrong = append $wrong (printf "loads: there are two of the name %s" .name) -}}
{{- end -}}
{{- $loads = append $loads .name -}}
{{- $load := . -}}
{{- range compact (append .sources (.manifest | default "")) -}}
{{- if and (hasPrefix "/" .) (not $v.ray.sources.existingClaim) -}}
{{- $wrong = append $wrong (printf "loads, %s: %s lies on a volume: set ray.sources.existingClaim, which is mounted at /sources" $load.name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- else if $v.loads -}}
{{- $wrong = append $wrong "loads run on Ray: set ray.enabled" -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\n\nThese values cannot work:\n  * %s\n" (join "\n  * " (uniq $wrong))) -}}
{{- end -}}
{{- end -}}
