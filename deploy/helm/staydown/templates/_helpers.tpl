{{- define "staydown.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "staydown.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "staydown.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "staydown.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "staydown.selector" -}}
app.kubernetes.io/name: {{ include "staydown.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "staydown.labels" -}}
{{ include "staydown.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "staydown.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "staydown.claim" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-data" (include "staydown.fullname" .)) -}}
{{- end -}}

{{- define "staydown.scheme" -}}
{{- if .Values.web.tls.existingSecret }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{/* What phase it is, checked once: a typing error must not start the wrong thing. */}}
{{- define "staydown.phase" -}}
{{- if not (has .Values.phase (list "init" "join" "run")) -}}
{{- fail (printf "phase is %q, expected init, join or run" .Values.phase) -}}
{{- end -}}
{{- .Values.phase -}}
{{- end -}}

{{- define "staydown.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# Only the volume's own root is given to the group, and only when it is not yet: the node refuses keys that a group may
# read, so their modes must stay.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "staydown.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities:
  drop: ["ALL"]
{{- end -}}

{{- define "staydown.environment" -}}
- name: STAYDOWN_CONFIG
  value: /etc/staydown/staydown.toml
- name: STAYDOWN_DATA
  value: /var/lib/staydown/node
{{- if .Values.keys.existingSecret }}
- name: CREDENTIALS_DIRECTORY
  value: /run/secrets/staydown
{{- end }}
{{- end -}}

{{- define "staydown.mounts" -}}
- name: data
  mountPath: /var/lib/staydown
- name: settings
  mountPath: /etc/staydown
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .Values.keys.existingSecret }}
- name: keys
  mountPath: /run/secrets/staydown
  readOnly: true
{{- end }}
{{- if .Values.web.tls.existingSecret }}
- name: tls
  mountPath: /etc/staydown-tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "staydown.volumes" -}}
- name: data
  persistentVolumeClaim:
    claimName: {{ include "staydown.claim" . }}
- name: settings
  configMap:
    name: {{ include "staydown.fullname" . }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- if .Values.keys.existingSecret }}
- name: keys
  secret:
    secretName: {{ .Values.keys.existingSecret }}
    # For the pod's own group; the node takes that from its credentials, and from nowhere else.
    defaultMode: 0440
{{- end }}
{{- if .Values.web.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ .Values.web.tls.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* A value as TOML has it: strings quoted, lists in brackets, the rest as it is. */}}
{{- define "staydown.toml" -}}
{{- if kindIs "string" . -}}
{{ . | toJson }}
{{- else if kindIs "slice" . -}}
[{{ range $index, $one := . }}{{ if $index }}, {{ end }}{{ include "staydown.toml" $one }}{{ end }}]
{{- else if kindIs "float64" . -}}
{{ if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}
