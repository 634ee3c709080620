"""The traps of the exporter's text."""

from __future__ import annotations

import time

import pytest
from device_api_dcgm import series
from device_api_dcgm.exposition import Key, Watch, parse
from hypothesis import given, settings
from hypothesis import strategies as st


def only(scene, body=None):
    [reading] = parse(scene.bytes if body is None else body).gpus.values()
    return reading


@pytest.fixture
def one(make_scene):
    return make_scene(gpus=1)


@pytest.mark.parametrize("type_", ["counter", "gauge", "untyped", "histogram", "nonsense"])
def test_the_declared_type_changes_nothing(one, type_):
    one.type = type_
    reading = only(one.set("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 0, 3).watch(0, "MEM", 20, "X"))
    assert reading.worst(series.DBE) == 3
    assert reading.watches["MEM"] == Watch(20, "DCGM_FR_X")
    assert reading.xids == {}


@pytest.mark.parametrize("host", ["Hostname", "hostname", "anything"])
@pytest.mark.parametrize("uuid", ["UUID", "uuid", "gpu_uuid"])
def test_every_spelling_of_the_labels_is_understood(one, host, uuid):
    one.host_label, one.uuid_label = host, uuid
    spec = only(one).spec
    assert spec.uuid == one.uuid(0)
    assert (spec.index, spec.minor, spec.pci_bus_id) == (0, 0, "0000:1b:00.0")
    assert spec.product_name == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(("old", "new"), series.ALIASES.items())
def test_names_before_and_since_dcgm_4_6_are_one(one, old, new):
    one.drop(old)
    assert only(one.set(old, 0, 7)).worst(new) == 7
    one.drop(old)
    assert only(one.set(new, 0, 8)).worst(new) == 8
    one.drop(new)
    assert only(one.set(f"{new}_total", 0, 9)).worst(new) == 9


@pytest.mark.parametrize(
    "blank",
    [
        *(2147483632, 2147483633, 2147483634, 2147483635),
        *(9223372036854775792, 9223372036854775795, "9.223372036854776e+18"),
        *("140737488355328.000000", 140737488355331, "NaN", "+Inf", "-Inf"),
        *("<<<NULL>>>", "<<<NOT_FOUND>>>", "<<<NOT_SUPPORTED>>>", "<<<NOT_PERM>>>"),
        "ERROR - FAILED TO CONVERT TO STRING",
        *("", "1_000", "9" * 5000, "0x10"),
    ],
)
def test_a_blank_is_no_value(one, blank):
    reading = only(one.set("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 0, blank))
    assert reading.worst(series.DBE) is None
    assert reading.worst(series.TEMPERATURE) == 41


@pytest.mark.parametrize("value", [2147483631, 2147483636, 9000000000000000000, 140737488355327])
def test_a_great_number_is_a_value(one, value):
    assert only(one.set("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 0, value)).worst(series.DBE) == value


def test_mig_rows_are_parts_of_their_gpu(one):
    name = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
    one.drop(name)
    for instance, count in (("1", 0), ("2", 5)):
        one.set(name, 0, count, GPU_I_PROFILE="1g.10gb", GPU_I_ID=instance)
    assert only(one).all(series.DBE) == {"1": 0, "2": 5}


def test_rows_of_a_shared_gpu_are_one(one):
    name = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
    one.drop(name)
    for pod, count in (("a", 2), ("b", 3), ("", 1)):
        one.set(name, 0, count, pod=pod, namespace="x", container="c")
        one.xid(0, 31, count, pod=pod)
    reading = only(one)
    assert reading.values[Key(series.DBE)] == 3
    assert reading.xids == {31: 3}


def test_rows_of_links_switches_and_cpus(one):
    one.extra = (
        f'DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL{{nvlink="3",gpu="0",gpu_uuid="{one.uuid(0)}",'
        'model_name="x",hostname="h"} 4\n'
        'DCGM_FI_DEV_GPU_TEMP{nvswitch="0"} 50\n'
        'DCGM_FI_DEV_XID_ERRORS{cpu="0",cpucore="3"} 79\n'
        'DCGM_FI_DEV_XID_ERRORS{UUID=""} 79\n'
        'DCGM_FI_DEV_XID_ERRORS{UUID="../../etc"} 79\n'
        "DCGM_FI_DEV_XID_ERRORS 79\n"
    )
    reading = only(one)
    assert reading.all(series.NVLINK_ERRORS[0]) == {"": 0, "3": 4}
    assert reading.worst(series.XID) == 0


def test_a_family_that_occurs_twice_is_one(one):
    doubled = one.text + one.text.replace("} 41\n", "} 99\n")
    assert only(one, doubled.encode()).worst(series.TEMPERATURE) == 99


def test_bad_lines_cost_only_themselves(one):
    bad = [b'DCGM_FI_DEV_GPU_TEMP{UUID="x} 1', b"DCGM_FI_DEV_GPU_TEMP{", b"DCGM_FI_DEV_GPU_TEMP"]
    scrape = parse(b"\n".join(bad) + b"\n\x00\xff{}\n" + one.bytes)
    assert len(scrape.gpus) == 1
    assert scrape.skipped == 3


def test_what_is_not_utf8_is_counted_and_health_is_still_seen(one):
    body = one.bytes.replace(b"HBM3", b"HBM3 \xe9\xff")
    scrape = parse(body)
    [reading] = scrape.gpus.values()
    assert reading.spec.product_name == ""
    assert reading.spec.pci_bus_id == "0000:1b:00.0"
    assert scrape.garbled == body.count(b"UUID=")
    assert len(reading.watches) == 11


@pytest.mark.parametrize("pci", ["00000001:1B:00.0", "1b:00.0", "0000:1B:00.0", "", "x"])
def test_pci_addresses(one, pci):
    body = one.bytes.replace(b"00000000:1B:00.0", pci.encode())
    wanted = {"00000001:1B:00.0": "0001:1b:00.0", "0000:1B:00.0": "0000:1b:00.0"}
    assert only(one, body).spec.pci_bus_id == wanted.get(pci, "")


def test_a_gpu_of_which_only_other_series_are_there_is_seen(make_scene):
    scene = make_scene(gpus=2).drop()
    scene.set("DCGM_FI_DEV_SM_CLOCK", 0, 1980).set("DCGM_FI_DEV_SM_CLOCK", 1, 1980)
    assert [len(r.series) for r in parse(scene.bytes).gpus.values()] == [0, 0]


def test_a_node_full_of_gpus_and_pods_is_read_quickly(make_scene):
    scene = make_scene(gpus=16)
    for gpu in range(16):
        for n in range(60):
            scene.set(f"DCGM_FI_PROF_FIELD_{n}", gpu, 0.5)
    body = scene.bytes
    began = time.perf_counter()
    assert len(parse(body).gpus) == 16
    assert time.perf_counter() - began < 3.0


labels = st.dictionaries(
    st.sampled_from(["gpu", "UUID", "health_watch", "xid", "clock_event", "GPU_I_ID", "x", "pod"]),
    st.text(max_size=20) | st.just("GPU-2f1a6c0e-5b3d-4c77-9a10-0d6c1f7be001"),
)
names = st.sampled_from([*series.EXPECTED, *series.ALIASES, "DCGM_FI_DEV_OTHER", "go_threads"])


def escaped(text):
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@given(st.lists(st.tuples(names, labels, st.floats() | st.integers())))
@settings(max_examples=150, deadline=None)
def test_any_valid_exposition_is_read(rows):
    lines = []
    for name, its_labels, value in rows:
        inner = ",".join(f'{n}="{escaped(v)}"' for n, v in its_labels.items())
        lines.append(f"{name}{{{inner}}} {value}\n")
    for reading in parse("".join(lines).encode("utf-8", "replace")).gpus.values():
        assert reading.series <= {series.canonical(name) for name, _, _ in rows}


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_survived(noise):
    parse(noise)
    parse(b"DCGM_FI_DEV_XID_ERRORS" + noise)
    parse(b'DCGM_FI_DEV_XID_ERRORS{UUID="' + noise + b'"} 3\n')
