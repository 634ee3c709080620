#!/usr/bin/env bash
# The API from a shell: what is served, all GPUs, one GPU, and a watch.
set -euo pipefail

protos=$(dirname "$0")/../../proto
service=nvidia.device.v1alpha1.GpuService
deadline_exceeded=68

target=${NVIDIA_DEVICE_API:-/var/run/device-api/device.sock}
flags=(-plaintext)
case $target in
  /* | unix:*)
    flags+=(-unix)
    target=${target#unix:}
    target=${target#//}
    ;;
esac
# Reflection would do; with the .proto the field names are those of the API's JSON form.
typed=("${flags[@]}" -import-path "$protos" -proto nvidia/device/v1alpha1/gpu.proto)

echo '# services, by reflection'
grpcurl "${flags[@]}" "$target" list

echo '# every GPU, and whether it is ready'
listed=$(grpcurl "${typed[@]}" "$target" $service/ListGpus)
names=$(python3 -c '
import json, sys
for gpu in json.load(sys.stdin)["gpuList"].get("items", []):
    ready = [c["status"] for c in gpu["status"]["conditions"] if c["type"] == "Ready"]
    print(gpu["metadata"]["name"], *ready)
' <<<"$listed")
echo "$names"

echo '# the first one'
grpcurl "${typed[@]}" -d "{\"name\": \"${names%% *}\"}" "$target" $service/GetGpu

echo '# a watch, for two seconds: every GPU as it is, then every change'
grpcurl "${typed[@]}" -max-time 2 "$target" $service/WatchGpus || [ $? -eq $deadline_exceeded ]
