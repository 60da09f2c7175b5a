{{- define "evertrain.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters: KubeRay and StatefulSets append their own. */}}
{{- define "evertrain.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "evertrain.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "evertrain.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What a Service or a policy finds pods by: never changes in the life of a release. */}}
{{- define "evertrain.selector" -}}
app.kubernetes.io/name: {{ include "evertrain.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "evertrain.labels" -}}
{{ include "evertrain.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* metadata of one object: dict "root" $ "component" "server" "name" "..." and, where it has any, "labels" and "annotations" */}}
{{- define "evertrain.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "evertrain.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* dict "root" $ "image" .Values.server.image "tag" "..." */}}
{{- define "evertrain.image" -}}
{{- $name := .image.repository }}
{{- if .root.Values.imageRegistry }}
{{- $name = printf "%s/%s" .root.Values.imageRegistry (.image.repository | trimPrefix "docker.io/") }}
{{- end }}
{{- if .image.digest }}
{{- printf "%s@%s" $name .image.digest }}
{{- else }}
{{- printf "%s:%s" $name (.image.tag | default .tag) }}
{{- end }}
{{- end }}

{{- define "evertrain.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "evertrain.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "evertrain.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* nodeSelector, tolerations, affinity, ... of one pod: what of it is set */}}
{{- define "evertrain.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $ $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "evertrain.tokensSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-tokens" (include "evertrain.fullname" .)) }}
{{- end }}

{{/* The Secret with the server's certificate; empty: no TLS */}}
{{- define "evertrain.tlsSecret" -}}
{{- if .Values.server.tls.existingSecret }}
{{- .Values.server.tls.existingSecret }}
{{- else if .Values.server.tls.certManager.enabled }}
{{- printf "%s-server-tls" (include "evertrain.fullname" .) }}
{{- end }}
{{- end }}

{{- define "evertrain.serverHost" -}}
{{- printf "%s-server.%s.svc" (include "evertrain.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "evertrain.serverAddress" -}}
{{- printf "%s:%v" (include "evertrain.serverHost" .) .Values.server.service.grpcPort }}
{{- end }}

{{- define "evertrain.storageRoot" -}}
{{- .Values.storage.url | default "/var/lib/evertrain-storage" }}
{{- end }}

{{- define "evertrain.storageClaim" -}}
{{- .Values.storage.existingClaim | default (printf "%s-storage" (include "evertrain.fullname" .)) }}
{{- end }}

{{/* Whether the claim is where checkpoints go: head, workers and server mount it then. */}}
{{- define "evertrain.storageMounted" -}}
{{- if and (not .Values.storage.url) (or .Values.ray.enabled .Values.storage.existingClaim) }}yes{{ end }}
{{- end }}

{{/* What whoever writes to `storage.url` is told of S3: the ranks their checkpoints, the server what retrainings learn from. */}}
{{- define "evertrain.storageEnv" -}}
{{- with .Values.storage }}
{{- if .endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ .endpoint | quote }}}
{{- end }}
{{- if .existingSecret }}
{{- $secret := .existingSecret }}
{{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ $key }}
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ $key }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value as it stood in the file. Helm reads every number as a float64, and Go writes one from a million on as 1e+06. */}}
{{- define "evertrain.plain" -}}
{{- if kindIs "float64" . }}{{ toJson . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{- define "evertrain.rayTokenSecret" -}}
{{- .Values.ray.auth.existingSecret | default (include "evertrain.fullname" .) }}
{{- end }}

{{- define "evertrain.ownRedis" -}}
{{- if and .Values.ray.enabled .Values.ray.gcsFaultTolerance.enabled (not .Values.ray.gcsFaultTolerance.externalAddress) }}yes{{ end }}
{{- end }}

{{- define "evertrain.redisSecret" -}}
{{- .Values.ray.gcsFaultTolerance.existingSecret | default (printf "%s-redis" (include "evertrain.fullname" .)) }}
{{- end }}

{{/* A random value of a Secret that this chart made before, else a new one: dict "root" $ "secret" NAME "key" KEY "prefix" "" */}}
{{- define "evertrain.keptOrNew" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .secret }}
{{- if and $found (index ($found.data | default dict) .key) }}
{{- index $found.data .key }}
{{- else }}
{{- printf "%s%s" (.prefix | default "") (randAlphaNum 43) | b64enc }}
{{- end }}
{{- end }}
