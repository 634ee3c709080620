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

{{- /* What the publisher's roles are called. They lie outside of the release's namespace, where
another release may have the same name. */}}
{{- define "device-api-server.publisherName" -}}
{{- printf "%s-%s-publisher" .Release.Namespace (include "device-api-server.fullname" .) }}
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
  {{- if .dedicatedSockets }}
    {{- $sockets := list }}
    {{- range $id, $path := .dedicatedSockets }}{{ $sockets = append $sockets (printf "%s=%s" $id $path) }}{{ end }}
    {{- $_ := set $settings "dedicated_socket" $sockets }}
  {{- end }}
  {{- $_ := set $settings "forbid_anonymous" .forbidAnonymous }}
  {{- $_ := set $settings "transport" .transport }}
  {{- $_ := set $settings "max_reads_per_second" .maxReadsPerSecond }}
  {{- $_ := set $settings "max_writes_per_second" .maxWritesPerSecond }}
  {{- $_ := set $settings "forget_lost_providers_after" .forgetLostProvidersAfter }}
  {{- $_ := set $settings "health_port" .healthPort }}
  {{- $_ := set $settings "metrics_port" .metricsPort }}
  {{- $_ := set $settings "shutdown_timeout" .shutdownTimeout }}
  {{- $_ := set $settings "shutdown_delay" .shutdownDelay }}
  {{- $_ := set $settings "require_heartbeat" .requireHeartbeat }}
  {{- $_ := set $settings "strict_unregister" .strictUnregister }}
{{- end }}
{{- with include "device-api-server.tlsSecret" . }}
  {{- $_ := set $settings "tls_cert_file" "/etc/device-api-tls/tls.crt" }}
  {{- $_ := set $settings "tls_private_key_file" "/etc/device-api-tls/tls.key" }}
{{- end }}
{{- with .Values.tls }}
  {{- if .clientCASecretName }}{{ $_ := set $settings "client_ca_file" "/etc/device-api-tls/ca.crt" }}{{ end }}
  {{- if .providerAddress }}{{ $_ := set $settings "grpc_provider_address" .providerAddress }}{{ end }}
  {{- if .operatorNames }}{{ $_ := set $settings "tls_operator_name" .operatorNames }}{{ end }}
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
{{- with .Values.kubernetesPublisher }}{{ if .enabled }}

[publishers.kubernetes]
{{- range $name, $value := .options }}
{{ $name }} = {{ include "device-api-server.toml" $value }}
{{- end }}
{{- end }}{{ end }}
{{- end }}

{{- /* The Secret with the server's certificate; empty without TLS. */}}
{{- define "device-api-server.tlsSecret" -}}
{{- $made := ternary (printf "%s-tls" (include "device-api-server.fullname" .)) "" .Values.tls.certificate.enabled }}
{{- default $made .Values.tls.secretName }}
{{- end }}

{{- /* The gRPC ports that are reached from outside the pod: {ports: [{name, port}]}. */}}
{{- define "device-api-server.grpcPorts" -}}
{{- $ports := list }}
{{- with .Values }}
  {{- $addresses := dict "grpc" (get .server.settings "grpc_address" | default .server.grpcAddress) "grpc-provider" (get .server.settings "grpc_provider_address" | default .tls.providerAddress) }}
  {{- range $name, $address := $addresses }}
    {{- if and $address (not (regexMatch "^(127\\.|localhost:|\\[::1\\]:)" $address)) }}
      {{- $ports = append $ports (dict "name" $name "port" (regexFind "[0-9]+$" $address | int)) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- toYaml (dict "ports" $ports) }}
{{- end }}

{{- define "device-api-server.checkTls" -}}
{{- $secret := include "device-api-server.tlsSecret" . }}
{{- $transport := get .Values.server.settings "transport" | default .Values.server.transport }}
{{- $ports := (include "device-api-server.grpcPorts" . | fromYaml).ports }}
{{- with .Values.tls }}
  {{- if and .clientCASecretName (not $secret) }}{{ fail "tls.clientCASecretName needs tls.secretName or tls.certificate.enabled" }}{{ end }}
  {{- if and .providerAddress (not .clientCASecretName) }}{{ fail "tls.providerAddress needs tls.clientCASecretName: writes over TCP are taken with mutual TLS only" }}{{ end }}
  {{- if and .operatorNames (not .providerAddress) }}{{ fail "tls.operatorNames needs tls.providerAddress" }}{{ end }}
  {{- if and .certificate.enabled (not .certificate.issuerRef.name) }}{{ fail "tls.certificate.enabled needs tls.certificate.issuerRef.name" }}{{ end }}
  {{- if and .service.enabled (not $ports) }}{{ fail "tls.service.enabled needs tls.providerAddress, or server.grpcAddress beyond loopback" }}{{ end }}
  {{- if and (eq $transport "h2") (or $secret $ports) }}{{ fail "server.transport h2 serves unix sockets and loopback without TLS only: leave it grpcio" }}{{ end }}
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
{{- range $id, $path := .Values.server.dedicatedSockets }}
  {{- $all = append $all (dict "name" (printf "dedicated-%s" $id) "path" (dir $path) "mode" "0700") }}
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

{{- /* What a monitor scrapes besides: {root, monitor}. */}}
{{- define "device-api-server.publisherEndpoint" }}
{{- if .root.Values.kubernetesPublisher.enabled }}
    - port: publisher
      interval: {{ .monitor.interval }}
      scrapeTimeout: {{ .monitor.scrapeTimeout }}
      relabelings:
        # Another job: it is no server, and sums over servers shall not count it.
        - targetLabel: job
          replacement: {{ include "device-api-server.fullname" .root }}-publisher
        {{- with .monitor.relabelings }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .monitor.metricRelabelings }}
      metricRelabelings: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
{{- end }}
