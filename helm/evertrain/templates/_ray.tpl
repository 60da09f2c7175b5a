{{/* What every Ray pod has: dict "root" $ "pod" VALUES */}}
{{- define "evertrain.rayPod" -}}
serviceAccountName: {{ include "evertrain.fullname" .root }}-ray
automountServiceAccountToken: false
enableServiceLinks: false
# Ranks are told to end, and write what they have: a checkpoint's last shard may be on its way.
terminationGracePeriodSeconds: 60
securityContext:
  {{- include "evertrain.podSecurity" .root | nindent 2 }}
{{- include "evertrain.pullSecrets" .root }}
{{- include "evertrain.placement" .pod }}
{{- end }}

{{/* dict "root" $ "resources" {...} "image" {...} "flavour" "cpu" and, in a group, "group" */}}
{{- define "evertrain.rayContainer" -}}
image: {{ include "evertrain.image" (dict "root" .root "image" .image "tag" (printf "%s-%s" .root.Chart.AppVersion .flavour)) }}
imagePullPolicy: {{ .root.Values.ray.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  {{- if (.group | default dict).rdma }}
  # RDMA pins memory. The pod is no longer of the class "restricted".
  capabilities: {drop: [ALL], add: [IPC_LOCK]}
  {{- else }}
  capabilities: {drop: [ALL]}
  {{- end }}
env:
  {{- include "evertrain.rayEnv" . | nindent 2 }}
startupProbe:
  {{- include "evertrain.rayProbe" . | nindent 2 }}
  periodSeconds: 5
  failureThreshold: 60
readinessProbe:
  {{- include "evertrain.rayProbe" . | nindent 2 }}
  periodSeconds: 10
livenessProbe:
  {{- include "evertrain.rayProbe" . | nindent 2 }}
  periodSeconds: 15
  failureThreshold: 8
resources:
  {{- toYaml .resources | nindent 2 }}
volumeMounts:
  {{- include "evertrain.rayMounts" . | nindent 2 }}
{{- end }}

{{- define "evertrain.rayProbe" -}}
exec: {command: [evertrain-entrypoint, healthy, ray]}
timeoutSeconds: 5
{{- end }}

{{- define "evertrain.rayEnv" -}}
- {name: HOME, value: /home/evertrain}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- range $name, $value := (merge (dict) ((.group | default dict).nccl | default dict) .root.Values.ray.nccl) }}
- {name: {{ $name }}, value: {{ include "evertrain.plain" $value | quote }}}
{{- end }}
{{- include "evertrain.storageEnv" .root }}
{{- with .root.Values.ray.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with (.group | default dict).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "evertrain.rayMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: ray-logs, mountPath: /tmp/ray}
- {name: shared-mem, mountPath: /dev/shm}
- {name: home, mountPath: /home/evertrain}
{{- if include "evertrain.storageMounted" .root }}
- {name: storage, mountPath: /var/lib/evertrain-storage}
{{- end }}
{{- if include "evertrain.tlsSecret" .root }}
- {name: server-ca, mountPath: /etc/evertrain/ca, readOnly: true}
{{- end }}
{{- end }}

{{/* KubeRay would add volumes of the names ray-logs and shared-mem, which the agent could not share. */}}
{{- define "evertrain.rayVolumes" -}}
- name: tmp
  emptyDir: {}
- name: ray-logs
  emptyDir: {}
- name: shared-mem
  emptyDir: {medium: Memory, sizeLimit: {{ .sharedMemory }}}
- name: home
  emptyDir: {}
{{- if include "evertrain.storageMounted" .root }}
- name: storage
  persistentVolumeClaim:
    claimName: {{ include "evertrain.storageClaim" .root }}
{{- end }}
{{- with include "evertrain.tlsSecret" .root }}
# A sweep's trials call the server from processes that Ray's own container starts, not the agent's.
- name: server-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- end }}

{{/* A sidecar of Kubernetes' own: it is started again however it ended, also where the pod's restartPolicy is Never. It is up before
Ray is, and waits for it; that the agent connects again is the entrypoint's work.

No probe: were it not well, the head would be taken out of its Service, and gangs that need no agent would lose Ray. That the
agent is away is what the server knows and says. */}}
{{- define "evertrain.agent" -}}
image: {{ include "evertrain.image" (dict "root" . "image" .Values.ray.image "tag" (printf "%s-cpu" .Chart.AppVersion)) }}
imagePullPolicy: {{ .Values.ray.image.pullPolicy }}
restartPolicy: Always
args:
  - agent
  - --server={{ include "evertrain.serverAddress" . }}
  - --token-file=/etc/evertrain/agent/agent.token
  - --cluster={{ .Values.ray.clusterName | default (include "evertrain.fullname" .) }}
  - --ray-address=$(POD_IP):6379
  - --pool-ttl={{ include "evertrain.plain" .Values.ray.agent.poolTtlSeconds }}
  {{- if .Values.ray.autoscaling.enabled }}
  - --autoscaling
  {{- end }}
  {{- if include "evertrain.tlsSecret" . }}
  - --ca-cert=/etc/evertrain/ca/ca.crt
  {{- end }}
securityContext:
  {{- include "evertrain.containerSecurity" . | nindent 2 }}
env:
  - name: POD_IP
    valueFrom:
      fieldRef: {fieldPath: status.podIP}
  - {name: RAY_AUTH_MODE, value: token}
  - {name: RAY_AUTH_TOKEN_PATH, value: /etc/evertrain/ray/auth_token}
  {{- include "evertrain.rayEnv" (dict "root" .) | nindent 2 }}
resources:
  {{- toYaml .Values.ray.agent.resources | nindent 2 }}
volumeMounts:
  {{- include "evertrain.rayMounts" (dict "root" .) | nindent 2 }}
  - {name: agent-token, mountPath: /etc/evertrain/agent, readOnly: true}
  - {name: ray-token, mountPath: /etc/evertrain/ray, readOnly: true}
{{- end }}

{{/* dict "root" $ "name" "h100" "group" {...} */}}
{{- define "evertrain.workerGroup" -}}
{{- $group := .group }}
{{- $gpu := $group.gpu | default dict }}
{{- range $key := list "replicas" "minReplicas" }}
{{- if gt (int (index $group $key)) (int $group.maxReplicas) }}
{{- fail (printf "ray.workerGroups.%s.%s: %d is above its maxReplicas of %d" $.name $key (int (index $group $key)) (int $group.maxReplicas)) }}
{{- end }}
{{- end }}
{{- $limits := deepCopy $group.resources.limits }}
{{- $requests := deepCopy ($group.resources.requests | default $group.resources.limits) }}
{{- range $extra := list $gpu ($group.rdma | default dict) }}
{{- if $extra.count }}
{{- $_ := set $limits $extra.resourceName $extra.count }}
{{- $_ := set $requests $extra.resourceName $extra.count }}
{{- end }}
{{- end }}
- groupName: {{ .name }}
  replicas: {{ $group.replicas | default 0 }}
  minReplicas: {{ $group.minReplicas | default 0 }}
  maxReplicas: {{ $group.maxReplicas }}
  numOfHosts: {{ $group.numOfHosts | default 1 }}
  {{- with $group.idleTimeoutSeconds }}
  idleTimeoutSeconds: {{ int64 . }}
  {{- end }}
  {{- with $group.labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rayStartParams:
    object-store-memory: "209715200"
  template:
    metadata:
      labels:
        {{- include "evertrain.labels" (dict "root" .root "component" "ray-worker") | nindent 8 }}
        evertrain/worker-group: {{ .name }}
      {{- with $group.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "evertrain.rayPod" (dict "root" .root "pod" $group) | nindent 6 }}
      {{- if .root.Values.ray.autoscaling.enabled }}
      restartPolicy: Never
      {{- end }}
      {{- with $gpu.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      containers:
        - name: ray-worker
          {{- include "evertrain.rayContainer" (dict "root" .root "group" $group "image" ($group.image | default .root.Values.ray.image) "flavour" (ternary "cuda" "cpu" (gt (int $gpu.count) 0)) "resources" (dict "limits" $limits "requests" $requests)) | nindent 10 }}
          ports:
            - {name: metrics, containerPort: 8080}
      volumes:
        {{- include "evertrain.rayVolumes" (dict "root" .root "sharedMemory" ($group.sharedMemory | default "2Gi")) | nindent 8 }}
{{- end }}
