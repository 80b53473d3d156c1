{{/* One variable out of a Secret: (list name secret key) */}}
{{- define "homeward.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom: { secretKeyRef: { name: {{ index . 1 | quote }}, key: {{ index . 2 | quote }} } }
{{- end -}}

{{/* Where things are in every container. */}}
{{- define "homeward.env" -}}
- { name: HOMEWARD_CONFIG, value: /etc/homeward/config/homeward.toml }
- { name: HOMEWARD_DATA_DIR, value: /var/lib/homeward }
- { name: HOME, value: /var/lib/homeward }
- { name: XDG_CACHE_HOME, value: /var/cache/homeward }
{{- if .Values.trust.configMap }}
{{- range list "SSL_CERT_FILE" "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" "PGSSLROOTCERT" }}
- { name: {{ . }}, value: {{ printf "/etc/homeward/trust/%s" $.Values.trust.key | quote }} }
{{- end }}
{{- else if regexMatch "[?&]sslrootcert=system(&|$)" .Values.catalogue.uri }}
# PostgreSQL's client brings an OpenSSL of its own, which does not look where the image has its authorities.
- { name: SSL_CERT_FILE, value: /etc/ssl/certs/ca-certificates.crt }
{{- end }}
{{- end -}}

{{/* Secrets of the stores, from the environment, as Homeward wants them. */}}
{{- define "homeward.storeEnv" -}}
{{- $v := .Values -}}
{{- if include "homeward.hasStores" . -}}
{{ include "homeward.secretEnv" (list "HOMEWARD_CATALOGUE__PASSWORD" $v.catalogue.passwordSecret.name $v.catalogue.passwordSecret.key) }}
{{ include "homeward.secretEnv" (list "HOMEWARD_PHOTOS__ACCESS_KEY" $v.photos.keysSecret.name $v.photos.keysSecret.accessKey) }}
{{ include "homeward.secretEnv" (list "HOMEWARD_PHOTOS__SECRET_KEY" $v.photos.keysSecret.name $v.photos.keysSecret.secretKey) }}
{{- if $v.gallery.tokenSecret.name }}
{{ include "homeward.secretEnv" (list "HOMEWARD_GALLERY__TOKEN" $v.gallery.tokenSecret.name $v.gallery.tokenSecret.key) }}
{{- end }}
{{- if eq $v.index.where "shards" }}
{{ include "homeward.secretEnv" (list "HOMEWARD_INDEX__TOKEN" $v.index.tokenSecret.name $v.index.tokenSecret.key) }}
{{- end }}
{{- end -}}
{{- end -}}
