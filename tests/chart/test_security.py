"""Whatever is set, no pod is more than it has to be."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rendering import containers, render

HOMES = st.sampled_from(["thread", "process", "sidecar"])
SWITCH = st.booleans()
PORTS = st.integers(1, 65_535)
SECONDS = st.one_of(st.integers(0, 600), st.floats(0, 600, allow_nan=False))
OPTION = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(-1e9, 1e9),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=12),
    st.lists(st.integers(0, 200), max_size=3),
)
OPTIONS = st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True), OPTION, max_size=3)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "server": st.fixed_dictionaries(
            {},
            optional={
                "grpcAddress": st.sampled_from(["", ":50051", "127.0.0.1:50051"]),
                "healthPort": PORTS,
                "shutdownDelay": SECONDS,
                "shutdownTimeout": SECONDS,
                "expectProviders": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
                "settings": OPTIONS,
            },
        ),
        "state": st.fixed_dictionaries({"enabled": SWITCH}),
        "prepareDirectories": SWITCH,
        "nvml": st.fixed_dictionaries(
            {"enabled": SWITCH, "home": HOMES},
            optional={
                "access": st.sampled_from(["runtimeClass", "runtime", "hostPath", "none"]),
                "options": OPTIONS,
            },
        ),
        "dcgm": st.fixed_dictionaries({"enabled": SWITCH, "home": HOMES, "options": OPTIONS}),
        "nvsentinelBridge": st.fixed_dictionaries({"enabled": SWITCH, "home": HOMES}),
        "providers": st.dictionaries(
            st.sampled_from(["fan", "pump_2"]),
            st.fixed_dictionaries({}, optional={"home": HOMES, "options": OPTIONS}),
        ),
        "kubernetesPublisher": st.fixed_dictionaries({"enabled": SWITCH, "options": OPTIONS}),
        "hostNetwork": SWITCH,
        "metrics": st.fixed_dictionaries({"enabled": SWITCH}),
    },
)
PREPARING = "directories"
PUBLISHER = "kubernetes-publisher"
TOKEN = "kubernetes-token"
WRITABLE_BY_ROOT = {"CHOWN", "FOWNER"}


def check_container(container, *, privileged):
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    if container["name"] == PREPARING:
        assert (context["runAsUser"], context["runAsNonRoot"]) == (0, False)
        assert set(context["capabilities"]["add"]) == WRITABLE_BY_ROOT
    else:
        assert (context["runAsUser"], context["runAsNonRoot"]) == (65534, True)
        assert context["runAsGroup"] == 65534
        assert "add" not in context.get("capabilities", {})
    assert context.get("privileged", False) is privileged
    if not privileged:
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "memory" in container["resources"]["limits"]


def check_pod(pod, directories, privileged):
    assert not {"hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in containers(pod):
        check_container(container, privileged=container["name"] == privileged)
    shared = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    driver = shared.pop("driver-root", None)
    assert (driver == "/run/nvidia/driver") is bool(privileged)
    assert set(shared.values()) <= directories
    for container in containers(pod):
        for mount in container["volumeMounts"]:
            assert mount["name"] != "driver-root" or mount["readOnly"]
            assert mount["name"] != TOKEN or container["name"] == PUBLISHER


def privileged_container(values):
    nvml = values.get("nvml", {})
    if not nvml.get("enabled") or nvml.get("access") != "hostPath":
        return None
    return "provider-nvml" if nvml["home"] == "sidecar" else "server"


@settings(max_examples=40)
@given(VALUES)
def test_no_pod_has_more_rights_than_it_needs(values):
    rendered = render(values)
    rendered.config  # noqa: B018 -- whatever the options, it is TOML
    directories = {"/var/run/device-api", "/var/run/device-api-provider"}
    if values.get("state", {}).get("enabled", True):
        directories.add("/var/lib/device-api")
    if values.get("nvsentinelBridge", {}).get("enabled"):
        directories.add("/var/run/device-api-nvsentinel")
    check_pod(rendered.pod, directories, privileged_container(values))
    test = rendered.only("Pod")["spec"]
    check_pod(test, {"/var/run/device-api"}, None)
    assert all(m["readOnly"] for c in test["containers"] for m in c["volumeMounts"])
    assert rendered.pod.get("hostNetwork", False) is values.get("hostNetwork", False)
    publishes = values.get("kubernetesPublisher", {}).get("enabled", False)
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        assert len(rendered.of_kind(kind)) == publishes
    assert ("serviceAccountToken" in str(rendered.pod["volumes"])) is publishes
    assert not rendered.of_kind("Secret")


@settings(max_examples=40)
@given(OPTIONS)
@example({"large": 1e20, "small": -1e-7, "most": 2**53, "quoted": '"\\${A} \u00e9', "none": []})
def test_options_reach_the_provider_as_they_were_given(options):
    values = {"providers": {"fan": {"home": "thread", "options": options}}}
    found = render(values).config["providers"]["fan"]
    assert found == options
    assert all(isinstance(found[k], bool) is isinstance(v, bool) for k, v in options.items())


def test_http_is_served_where_probes_come_and_nothing_else_leaves_the_pod():
    rendered = render({"nvml": {"enabled": True}})
    (address,) = (
        each
        for each in rendered.container("server")["env"]
        if each["name"] == "DEVICE_API_HTTP_ADDRESS"
    )
    assert address["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert rendered.config["grpc_address"].startswith("127.0.0.1:")
    assert not any("hostPort" in port for port in rendered.container("server")["ports"])


def test_a_sidecar_of_another_image_is_held_to_the_same():
    values = {"providers": {"fan": {"home": "sidecar", "image": "fan:1"}}}
    sidecar = render(values).container("provider-fan")
    assert sidecar["image"] == "fan:1"
    check_container(sidecar, privileged=False)
    # It reports, and cannot read or change what belongs to the node.
    mounts = {mount["name"] for mount in sidecar["volumeMounts"]}
    assert mounts == {"config", "providers", "state"}


def test_the_publisher_alone_has_a_token_and_reads_what_every_consumer_may():
    rendered = render({"kubernetesPublisher": {"enabled": True}, "nvml": {"enabled": True}})
    mounts = {m["name"]: m for m in rendered.container(PUBLISHER)["volumeMounts"]}
    assert mounts.keys() == {"config", "consumers", TOKEN}
    assert all(mount["readOnly"] for mount in mounts.values())
    assert mounts[TOKEN]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    (volume,) = (each for each in rendered.pod["volumes"] if each["name"] == TOKEN)
    token, authority = volume["projected"]["sources"]
    assert token["serviceAccountToken"] == {"path": "token", "expirationSeconds": 3600}
    assert authority["configMap"]["name"] == "kube-root-ca.crt"


def rules(role):
    return [(r["apiGroups"], r["resources"], r["verbs"]) for r in role["rules"]]


def test_the_publisher_may_do_what_it_has_to_and_nothing_else():
    rendered = render({"kubernetesPublisher": {"enabled": True}}, name="r")
    nodes, events = rendered.only("ClusterRole"), rendered.only("Role")
    assert rules(nodes) == [([""], ["nodes"], ["get"]), ([""], ["nodes/status"], ["patch"])]
    assert rules(events) == [([""], ["events"], ["create"])]
    assert events["metadata"]["namespace"] == "default"
    account = rendered.only("ServiceAccount")["metadata"]
    for role, binding in (
        (nodes, rendered.only("ClusterRoleBinding")),
        (events, rendered.only("RoleBinding")),
    ):
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert binding["roleRef"]["kind"] == role["kind"]
        assert binding["metadata"].get("namespace") == role["metadata"].get("namespace")
        (subject,) = binding["subjects"]
        assert subject["kind"] == "ServiceAccount"
        assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
    without = render({"kubernetesPublisher": {"enabled": True}, "rbac": {"create": False}})
    assert not any("Role" in each["kind"] for each in without.objects)


def test_what_runs_as_root_is_two_commands_per_directory():
    script = render({"nvsentinelBridge": {"enabled": True}}).container(PREPARING)["command"][2]
    modes = {}
    for chown, chmod in zip(*[iter(script.splitlines())] * 2, strict=True):
        owned = re.fullmatch(r"chown 65534:65534 (\S+)", chown)
        mode = re.fullmatch(r"chmod (\d+) (\S+)", chmod)
        assert owned[1] == mode[2]
        modes[mode[2]] = mode[1]
    assert modes == {
        "/var/run/device-api": "0755",
        "/var/run/device-api-provider": "0700",
        "/var/lib/device-api": "0700",
        "/var/run/device-api-nvsentinel": "0755",
    }
