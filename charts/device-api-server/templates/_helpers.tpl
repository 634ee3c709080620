{{- define "device-api-server.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Room is left for "-metrics" and the like: names of Services have 63 characters. */}}
{{- define "device-api-server.fullname" -}}
{{- $name := include "device-api-server.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "device-api-server.selectorLabels" -}}
app.kubernetes.io/name: {{ include "device-api-server.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "device-api-server.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "device-api-server.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "device-api-server.serviceAccountName" -}}
{{- $made := ternary (include "device-api-server.fullname" .) "default" .Values.serviceAccount.create }}
{{- default $made .Values.serviceAccount.name }}
{{- end }}

{{- define "device-api-server.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "device-api-server.runtimeClassName" -}}
{{- $needed := and .Values.nvml.enabled (eq .Values.nvml.access "runtimeClass") }}
{{- default (ternary "nvidia" "" $needed) .Values.runtimeClassName }}
{{- end }}

{{- /* Every provider that is on, in one form: {providers: [{name, home, options, ...}]}. */}}
{{- define "device-api-server.providers" -}}
{{- $all := list }}
{{- with .Values.nvml }}{{ if .enabled }}
  {{- $xids := list }}
  {{- range regexSplit "[, ]+" (toString .additionalIgnoredXids) -1 }}{{ if . }}{{ $xids = append $xids (int64 .) }}{{ end }}{{ end }}
  {{- $options := dict "health_check" .healthCheckEnabled "ignored_xids" $xids }}
  {{- if eq .access "hostPath" }}{{ $_ := set $options "driver_root" "/driver-root" }}{{ end }}
  {{- $all = append $all (dict "name" "nvml" "home" .home "options" (mergeOverwrite $options .options)) }}
{{- end }}{{ end }}
{{- with .Values.dcgm }}{{ if .enabled }}
  {{- $all = append $all (dict "name" "dcgm" "home" .home "options" (mergeOverwrite (dict "url" .url) .options)) }}
{{- end }}{{ end }}
{{- with .Values.nvsentinelBridge }}{{ if .enabled }}
  {{- $options := dict "socket" (printf "%s/bridge.sock" .socketDirectory) "node_name" "${NODE_NAME}" }}
  {{- $all = append $all (dict "name" "nvsentinel" "home" .home "options" (mergeOverwrite $options .options)) }}
{{- end }}{{ end }}
{{- range $name, $provider := .Values.providers }}
  {{- $all = append $all (mergeOverwrite (dict "name" $name "home" "process" "options" dict) $provider) }}
{{- end }}
{{- toYaml (dict "providers" $all) }}
{{- end }}

{{- /* One value as TOML. Numbers reach a template as floats, and toToml would print 8081.0. */}}
{{- define "device-api-server.toml" -}}
{{- if kindIs "slice" . }}
  {{- $items := list }}
  {{- range . }}{{ $items = append $items (include "device-api-server.toml" .) }}{{ end }}
  {{- printf "[%s]" (join ", " $items) }}
{{- else if kindIs "float64" . }}
  {{- if and (eq (floor .) .) (lt . 1e15) (gt . -1e15) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else }}
  {{- toJson . }}
{{- end }}
{{- end }}

{{- /* The file the server and its sidecars read. */}}
{{- define "device-api-server.config" -}}
{{- $run := list }}
{{- $expected := .Values.server.expectProviders }}
{{- $all := (include "device-api-server.providers" . | fromYaml).providers }}
{{- range $all }}
  {{- if eq .home "sidecar" }}{{ $expected = append $expected .name }}{{ else }}{{ $run = append $run .name }}{{ end }}
{{- end }}
{{- $settings := dict "provider" $run "expect_provider" $expected }}
{{- with .Values.server }}
  {{- $_ := set $settings "grpc_address" .grpcAddress }}
  {{- $_ := set $settings "unix_socket" .unixSocket }}
  {{- if not .singleSocket }}{{ $_ := set $settings "provider_socket" .providerSocket }}{{ end }}
  {{- $_ := set $settings "single_socket" .singleSocket }}
  {{- $_ := set $settings "health_port" .healthPort }}
  {{- $_ := set $settings "metrics_port" .metricsPort }}
  {{- $_ := set $settings "shutdown_timeout" .shutdownTimeout }}
  {{- $_ := set $settings "shutdown_delay" .shutdownDelay }}
  {{- $_ := set $settings "require_heartbeat" .requireHeartbeat }}
  {{- $_ := set $settings "strict_unregister" .strictUnregister }}
{{- end }}
{{- $_ := set $settings "log_format" .Values.logging.format }}
{{- $_ := set $settings "verbosity" .Values.logging.verbosity }}
{{- if .Values.state.enabled }}{{ $_ := set $settings "state_dir" .Values.state.directory }}{{ end }}
{{- range $name, $value := mergeOverwrite $settings .Values.server.settings }}
{{ $name }} = {{ include "device-api-server.toml" $value }}
{{- end }}
{{- range $all }}

[providers.{{ .name }}]
{{- if eq .home "process" }}
isolate = true
{{- end }}
{{- range $name, $value := .options }}
{{ $name }} = {{ include "device-api-server.toml" $value }}
{{- end }}
{{- end }}
{{- end }}

{{- define "device-api-server.providerDirectory" -}}
{{- with .Values.server }}{{ if and .providerSocket (not .singleSocket) }}{{ dir .providerSocket }}{{ end }}{{ end }}
{{- end }}

{{- /* The directories shared with the host: {directories: [{name, path, mode}]}. */}}
{{- define "device-api-server.directories" -}}
{{- $all := list }}
{{- with .Values.server.unixSocket }}
  {{- $all = append $all (dict "name" "consumers" "path" (dir .) "mode" "0755") }}
{{- end }}
{{- with include "device-api-server.providerDirectory" . }}
  {{- $all = append $all (dict "name" "providers" "path" . "mode" "0700") }}
{{- end }}
{{- if .Values.state.enabled }}
  {{- $all = append $all (dict "name" "state" "path" .Values.state.directory "mode" "0700") }}
{{- end }}
{{- if .Values.nvsentinelBridge.enabled }}
  {{- $all = append $all (dict "name" "nvsentinel" "path" .Values.nvsentinelBridge.socketDirectory "mode" "0755") }}
{{- end }}
{{- $seen := dict }}
{{- range $all }}
  {{- if hasKey $seen .path }}{{ fail (printf "the directories of %s and %s are both %s: give each one of its own" (get $seen .path) .name .path) }}{{ end }}
  {{- $_ := set $seen .path .name }}
{{- end }}
{{- toYaml (dict "directories" $all) }}
{{- end }}

{{- /* What every container of the chart has. */}}
{{- define "device-api-server.commonEnv" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: HOST_IP
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
{{- end }}

{{- define "device-api-server.driverEnv" -}}
- name: NVIDIA_VISIBLE_DEVICES
  value: all
- name: NVIDIA_DRIVER_CAPABILITIES
  value: utility
{{- end }}

{{- define "device-api-server.driverMount" -}}
- name: driver-root
  mountPath: /driver-root
  readOnly: true
  mountPropagation: HostToContainer
{{- end }}

{{- /* Without a container runtime that knows GPUs, only a privileged container may open their device
files. It has no capabilities in effect all the same, for its user is not root. */}}
{{- define "device-api-server.driverSecurityContext" -}}
{{- mergeOverwrite (deepCopy (omit .Values.securityContext "allowPrivilegeEscalation" "capabilities" "seccompProfile")) (dict "privileged" true) | toYaml }}
{{- end }}
