"""The objects are ones that every supported Kubernetes takes, and they fit together."""

import copy
import shutil
from functools import cache

import pytest
import yaml
from kubernetes_validate import ValidationError, validate
from rendering import CHART, OPERATOR, containers, render

KUBERNETES = [f"1.{minor}" for minor in range(25, 38)]
FAN = {"home": "sidecar", "image": "fan:1", "env": [{"name": "A", "value": "1"}]}
RELEASES = {
    "defaults": {},
    "quick start": {"nvml": {"enabled": True}},
    "everything": {
        "image": {"digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": [{"name": "registry"}],
        "server": {"grpcAddress": ":50051"},
        "nvml": {"enabled": True, "home": "sidecar", "access": "hostPath"},
        "dcgm": {"enabled": True, "home": "process", "url": "https://exporter.gpu/metrics"},
        "nvsentinelBridge": {"enabled": True, "home": "sidecar"},
        "providers": {"fan": FAN, "pump_2": {"home": "thread"}},
        "kubernetesPublisher": {"enabled": True, "options": {"events_per_minute": 5}},
        "podSecurityContext": {"seLinuxOptions": {"type": "spc_t"}},
        "serviceAccount": {"annotations": {"a": "b"}, "automountServiceAccountToken": True},
        "rbac": {"rules": [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]},
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"a": "b"},
        "networkPolicy": {
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
            "apiServerTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
            "extraIngress": [{"ports": [{"port": 1}]}],
            "extraEgress": [{"ports": [{"port": 2}]}],
        },
        "metrics": {
            "service": {"labels": {"a": "b"}, "annotations": {"a": "b"}},
            "serviceMonitor": {
                "enabled": True,
                "labels": {"release": "prometheus"},
                "relabelings": [{"targetLabel": "cluster", "replacement": "a"}],
                "metricRelabelings": [{"action": "labeldrop", "regex": "uid"}],
            },
            "prometheusRule": {
                "enabled": True,
                "labels": {"release": "prometheus"},
                "additionalRules": [{"alert": "A", "expr": "up == 0"}],
            },
            "dashboards": {"enabled": True, "annotations": {"folder": "GPU"}},
        },
        "env": [{"name": "A", "value": "1"}],
        "extraVolumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
        "initContainers": [{"name": "first", "image": "first:1"}],
        "sidecars": [{"name": "beside", "image": "beside:1"}],
    },
    "least": {
        "server": {"unixSocket": "", "providerSocket": "", "grpcAddress": ":1"},
        "state": {"enabled": False},
        "serviceAccount": {"create": False},
        "networkPolicy": {"enabled": False},
        "metrics": {"enabled": False},
        "nodeSelector": {"nvidia.com/gpu.present": None},
        "tolerations": [],
        "priorityClassName": "",
    },
    "host network, one socket": {
        "hostNetwork": True,
        "server": {"singleSocket": True},
        "metrics": {"podMonitor": {"enabled": True}},
        "kubernetesPublisher": {"enabled": True, "metricsPort": 9191},
        "updateStrategy": {"type": "OnDelete", "rollingUpdate": None},
    },
}
release = pytest.mark.parametrize("values", RELEASES.values(), ids=RELEASES)


@cache
def rendered_releases():
    """Each release once: no template asks for the cluster's version."""
    return [render(values) for values in RELEASES.values()]


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_every_supported_kubernetes_takes_the_objects(kubernetes):
    for rendered in rendered_releases():
        for each in rendered.objects:
            # An unknown kind raises too; the operator's have a test of their own.
            if each["apiVersion"] != OPERATOR:
                validate(each, kubernetes, strict=True)


def test_an_unknown_field_would_be_noticed():
    daemonset = copy.deepcopy(render().only("DaemonSet"))
    daemonset["spec"]["template"]["spec"]["containers"][0]["imagePullPolicies"] = "Always"
    with pytest.raises(ValidationError, match="imagePullPolicies"):
        validate(daemonset, "1.37", strict=True)


def kept(given, taken):
    """Whether everything given is in what was taken. Defaults may have come to it."""
    if isinstance(given, dict):
        return all(key in taken and kept(each, taken[key]) for key, each in given.items())
    if isinstance(given, list):
        return len(given) == len(taken) and all(map(kept, given, taken))
    return given == taken


@pytest.mark.timeout(180)
def test_the_prometheus_operator_takes_its_objects():
    # Seconds to import, so in one test of one worker.
    from cloudcoil.models.prometheus_operator import v1

    kinds = set()
    for rendered in rendered_releases():
        for each in rendered.objects:
            if each["apiVersion"] == OPERATOR:
                kinds.add(each["kind"])
                model = getattr(v1, each["kind"]).model_validate(each)
                # The model drops what it does not know.
                assert kept(each, model.model_dump(mode="json", by_alias=True))
    assert kinds == {"PodMonitor", "PrometheusRule", "ServiceMonitor"}


@release
def test_names_and_labels_join_the_objects(values):
    rendered = render(values, name="r")
    daemonset = rendered.only("DaemonSet")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    selectors = [daemonset["spec"]["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"] for each in rendered.of_kind("Service")]
    for each in rendered.of_kind("NetworkPolicy"):
        selectors.append(each["spec"]["podSelector"]["matchLabels"])
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    # The test's pod is not one that is scraped, or let through, as a server.
    for each in rendered.of_kind("Pod"):
        assert not selectors[0].items() <= each["metadata"]["labels"].items()
    for each in rendered.of_kind("ServiceMonitor"):
        service = rendered.only("Service")
        assert (
            each["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        )
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in each["spec"]["endpoints"]} == ports
    homes = {each["kind"]: each["metadata"].get("namespace") for each in rendered.objects}
    assert homes.pop("ClusterRole", None) is homes.pop("ClusterRoleBinding", None) is None
    assert set(homes.values()) - {"default"} == {"device-api"}
    assert {kind for kind in homes if homes[kind] == "default"} <= {"Role", "RoleBinding"}


@release
def test_volumes_and_ports_join_the_containers(values):
    rendered = render(values)
    for pod in rendered.pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounted = {m["name"] for c in containers(pod) for m in c.get("volumeMounts", [])}
        assert mounted == volumes
        names = [container["name"] for container in containers(pod)]
        assert len(names) == len(set(names))
    server = rendered.container("server")
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports["health"] == rendered.config["health_port"]
    assert ports["metrics"] == rendered.config["metrics_port"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert server[probe]["httpGet"]["port"] == "health"
    # Only what is written on the node's or the pod's volumes can be written at all.
    writable = [m["mountPath"] for m in server["volumeMounts"] if not m.get("readOnly")]
    for path in ("unix_socket", "provider_socket", "state_dir"):
        if value := rendered.config.get(path):
            assert any(value.startswith(directory) for directory in writable)


@release
def test_every_port_names_its_protocol(values):
    """Server-side apply keys a list of ports by it, and old API servers do not fill it in."""
    rendered = render(values)
    ports = [port for service in rendered.of_kind("Service") for port in service["spec"]["ports"]]
    assert ports or not rendered.of_kind("Service")
    ports += [port for each in containers(rendered.pod) for port in each.get("ports", [])]
    assert ports
    assert all(port["protocol"] == "TCP" for port in ports)


def test_liveness_does_not_ask_what_a_driver_can_withhold():
    server = render({"nvml": {"enabled": True}}).container("server")
    assert server["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert server["startupProbe"]["httpGet"]["path"] == "/livez"
    assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_pod_is_given_the_time_that_stopping_takes():
    values = {"server": {"shutdownDelay": 2.5, "shutdownTimeout": 10.2}}
    assert render(values).pod["terminationGracePeriodSeconds"] == 21
    assert render().pod["terminationGracePeriodSeconds"] == 45


def test_the_pod_is_critical_to_its_node_and_never_two():
    daemonset = render().only("DaemonSet")["spec"]
    assert daemonset["template"]["spec"]["priorityClassName"] == "system-node-critical"
    assert daemonset["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1},
    }


def test_a_changed_configuration_rolls_the_pods():
    def checksum(values):
        template = render(values).only("DaemonSet")["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"]

    assert checksum({}) == checksum({"podLabels": {"a": "b"}})
    assert checksum({}) != checksum({"nvml": {"enabled": True}})


def environment(container):
    return {each["name"]: each.get("value") for each in container.get("env", [])}


@pytest.mark.parametrize("home", ["thread", "process", "sidecar"])
@pytest.mark.parametrize("access", ["runtimeClass", "runtime", "hostPath", "none"])
def test_the_driver_reaches_the_container_that_runs_nvml_and_no_other(home, access):
    nvml = {"enabled": True, "home": home, "access": access}
    rendered = render({"nvml": nvml, "dcgm": {"enabled": True, "home": "sidecar"}})
    where = "provider-nvml" if home == "sidecar" else "server"
    assert rendered.pod.get("runtimeClassName") == ("nvidia" if access == "runtimeClass" else None)
    for container in containers(rendered.pod):
        has = container["name"] == where
        env = environment(container)
        by_runtime = has and access in ("runtimeClass", "runtime")
        assert env.get("NVIDIA_VISIBLE_DEVICES") == ("all" if by_runtime else None)
        assert env.get("NVIDIA_DRIVER_CAPABILITIES") == ("utility" if by_runtime else None)
        mounts = {m["name"]: m for m in container["volumeMounts"]}
        assert ("driver-root" in mounts) is (has and access == "hostPath")
        assert container["securityContext"].get("privileged", False) is (
            has and access == "hostPath"
        )
        # It watches GPUs and takes none.
        assert "nvidia.com/gpu" not in str(container["resources"])


def test_the_runtime_class_can_be_named():
    values = {"nvml": {"enabled": True}, "runtimeClassName": "nvidia-legacy"}
    assert render(values).pod["runtimeClassName"] == "nvidia-legacy"
    assert "runtimeClassName" not in render().pod


def ports(rules):
    return {int(port["port"]) for rule in rules for port in rule["ports"]}


def test_the_network_lets_in_probes_and_scrapes_and_lets_nothing_out():
    policy = render({"nvml": {"enabled": True}}).only("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert ports(policy["ingress"]) == {8081, 9090}
    assert policy["egress"] == []


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        (":50051", {50051}),
        ("0.0.0.0:6", {6}),
        ("[::1]:7", set()),
        ("localhost:8", set()),
        ("", set()),
    ],
)
def test_the_network_lets_readers_in_where_they_are_served(address, opened):
    for values in ({"grpcAddress": address}, {"settings": {"grpc_address": address}}):
        if not address and "settings" in values:
            continue
        policy = render({"server": values}).only("NetworkPolicy")["spec"]
        assert ports(policy["ingress"]) == {8081, 9090} | opened


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://${HOST_IP}:9400/metrics", 9400),
        ("https://exporter.gpu/metrics", 443),
        ("http://exporter.gpu", 80),
        ("http://exporter:81", 81),
        ("http://exporter/a:82/b", 80),
    ],
)
def test_the_network_lets_dcgms_provider_reach_its_exporter(url, port):
    policy = render({"dcgm": {"enabled": True, "url": url}}).only("NetworkPolicy")["spec"]
    assert ports(policy["egress"]) == {53, port}


def test_the_network_lets_the_publisher_reach_the_api_server_and_its_scrapers_in():
    values = {"kubernetesPublisher": {"enabled": True, "metricsPort": 9191}}
    policy = render(values).only("NetworkPolicy")["spec"]
    assert ports(policy["ingress"]) == {8081, 9090, 9191}
    assert ports(policy["egress"]) == {443, 6443}
    there, prometheus = {"ipBlock": {"cidr": "192.0.2.1/32"}}, {"podSelector": {}}
    values["networkPolicy"] = {
        "apiServerTo": [there],
        "apiServerPorts": [8443],
        "metricsFrom": [prometheus],
    }
    policy = render(values).only("NetworkPolicy")["spec"]
    (out,) = policy["egress"]
    assert out == {"ports": [{"protocol": "TCP", "port": 8443}], "to": [there]}
    whose = {each["ports"][0]["port"]: each.get("from") for each in policy["ingress"]}
    assert whose == {8081: None, 9090: [prometheus], 9191: [prometheus]}


def test_rules_and_dashboards_of_the_chart_are_rendered_whole(tmp_path):
    bare, chart = tmp_path / "bare", tmp_path / "chart"
    for each in (bare, chart):
        shutil.copytree(CHART, each, ignore=shutil.ignore_patterns("rules", "dashboards"))
    metrics = {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}
    without = render({"metrics": metrics}, chart=bare)
    assert without.only("PrometheusRule")["spec"]["groups"] == []
    assert [each["metadata"]["name"] for each in without.of_kind("ConfigMap")] == [
        "device-api-server"
    ]

    (chart / "rules").mkdir()
    (chart / "dashboards").mkdir()
    rule = {"alert": "Down", "expr": 'up{job="device-api-server-metrics"} == 0'}
    rule["annotations"] = {"summary": "{{ $labels.instance }} is down"}
    for name in ("a", "b"):
        groups = {"groups": [{"name": name, "rules": [rule]}]}
        (chart / "rules" / f"{name}.yaml").write_text(yaml.safe_dump(groups))
    (chart / "dashboards" / "node.json").write_text('{"title": "{{ node }}"}')
    rendered = render({"metrics": metrics}, name="r", chart=chart)
    groups = rendered.only("PrometheusRule")["spec"]["groups"]
    assert [group["name"] for group in groups] == ["a", "b"]
    # The job's name follows the release; Prometheus's own templates stay.
    assert groups[0]["rules"][0]["expr"] == 'up{job="r-device-api-server-metrics"} == 0'
    assert groups[0]["rules"][0]["annotations"] == rule["annotations"]
    service = rendered.only("Service")
    assert service["metadata"]["name"] == "r-device-api-server-metrics"
    (dashboards,) = (c for c in rendered.of_kind("ConfigMap") if "node.json" in c["data"])
    assert dashboards["data"] == {"node.json": '{"title": "{{ node }}"}'}
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"


def jobs(endpoints):
    """The name that an endpoint gives its job, by the endpoint's port."""
    return {
        endpoint["port"]: each["replacement"]
        for endpoint in endpoints
        for each in endpoint.get("relabelings", [])
        if each["targetLabel"] == "job"
    }


def test_a_pod_monitors_job_has_the_name_that_the_alerts_know():
    monitor = render({"metrics": {"podMonitor": {"enabled": True}}}).only("PodMonitor")
    assert jobs(monitor["spec"]["podMetricsEndpoints"]) == {"metrics": "device-api-server-metrics"}


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_the_publishers_job_is_another_one_that_the_alerts_know(kind):
    mine = {"targetLabel": "cluster", "replacement": "a"}
    monitor = {"enabled": True, "relabelings": [mine]}
    values = {"kubernetesPublisher": {"enabled": True}}
    values["metrics"] = {
        f"{kind[0].lower()}{kind[1:]}": monitor,
        "prometheusRule": {"enabled": True},
    }
    rendered = render(values, name="r")
    spec = rendered.only(kind)["spec"]
    endpoints = spec.get("endpoints") or spec["podMetricsEndpoints"]
    named = "r-device-api-server-publisher"
    assert jobs(endpoints)["publisher"] == named
    assert all(mine in each["relabelings"] for each in endpoints)
    groups = rendered.only("PrometheusRule")["spec"]["groups"]
    asked = [rule["expr"] for group in groups for rule in group["rules"]]
    assert any(f'up{{job="{named}"}}' in each for each in asked)


def test_the_notes_say_what_runs_and_warn():
    assert "none. GPUs appear when" in render().notes
    notes = render({"nvml": {"enabled": True}, "dcgm": {"enabled": True}}).notes
    assert "Providers: nvml (process), dcgm (thread)." in notes
    assert "WARNING" not in notes
    assert "privileged" in render({"nvml": {"enabled": True, "access": "hostPath"}}).notes
    assert "lets every consumer write" in render({"server": {"singleSocket": True}}).notes
    assert "condition" not in render().notes
    publisher = {"enabled": True, "options": {"condition_type": "AllGPUs"}}
    assert "condition AllGPUs of each Node" in render({"kubernetesPublisher": publisher}).notes
