"""Which file becomes the library."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from device_api_nvml.library import DriverGone, GpuLost, Handle, Nvml, NvmlError, Unsupported
from device_api_nvml.loading import PLACES, SONAME, LibraryNotFound, open_library, resolve_inside


@pytest.mark.parametrize("place", PLACES)
def test_every_place_below_a_driver_root_is_searched(tmp_path, bench, place):
    real = bench.node().library
    target = tmp_path / "root" / place / SONAME
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(real.read_bytes())
    _, file = open_library(str(tmp_path / "root"))
    assert file == str(target)


def test_links_are_resolved_inside_the_root(tmp_path):
    root = tmp_path / "root"
    (root / "opt").mkdir(parents=True)
    (root / "opt" / "real.so.580").write_bytes(b"")
    (root / "usr").mkdir()
    (root / "usr" / "lib64").symlink_to("/opt")
    (root / "opt" / SONAME).symlink_to("../../../../opt/real.so.580")
    assert resolve_inside(root, f"usr/lib64/{SONAME}") == root / "opt" / "real.so.580"


def test_a_circle_of_links_is_no_library(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert resolve_inside(tmp_path, "a") is None
    assert resolve_inside(tmp_path, "a/../c") is None


def test_a_file_that_does_not_open_is_passed_over(tmp_path, bench):
    node = bench.node()
    wrong = node.root / SONAME
    wrong.write_bytes(b"\x7fELF of another machine")
    _, file = open_library(str(node.root))
    assert file == str(node.library)


def test_a_new_file_beside_the_old_one_is_found(tmp_path, bench):
    old, new = bench.node("old"), bench.node("new")
    directory = tmp_path / "lib"
    directory.mkdir()
    for version, node in (("1", old), ("2", new)):
        (directory / f"libnvidia-ml.so.{version}00").write_bytes(node.library.read_bytes())
    link = directory / SONAME
    link.symlink_to("libnvidia-ml.so.100")
    _, first = open_library("", beside=str(link))
    link.unlink()
    link.symlink_to("libnvidia-ml.so.200")
    _, second = open_library("", beside=first)
    assert (first[-3:], second[-3:]) == ("100", "200")


SCRIPT = """
import json
from device_api_nvml.library import Nvml
nvml = Nvml.open({root!r})
print(json.dumps([nvml.file, nvml.count(), nvml.driver_version()]))
nvml.close()
"""


@pytest.mark.parametrize("root", ["", "/nowhere"])
def test_without_a_library_in_the_root_the_dynamic_linker_is_asked(bench, root):
    node = bench.node(gpus=2)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(root=root)],
        env={**node.environment(), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [str(node.library), 2, node.driver_version]


def test_a_missing_library_is_said_in_the_linkers_words(tmp_path):
    script = f"""
from device_api_nvml.library import DriverGone, Nvml
try:
    Nvml.open({str(tmp_path)!r})
except DriverGone as error:
    print(error.number, error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("12 ")
    assert "cannot open shared object file" in done.stdout


def test_errors_say_what_they_mean_for_health(bench):
    node = bench.node(gpus=2, without_symbols=["nvmlDeviceGetSerial"])
    nvml = Nvml.open(str(node.root))
    first, second = nvml.handle(0), nvml.handle(1)
    with pytest.raises(Unsupported):
        nvml.serial(first)
    node.lose(1)
    with pytest.raises(GpuLost, match="nvmlDeviceGetUUID.*15"):
        nvml.uuid(second)
    node.calls.fail("nvmlDeviceGetName", 27)
    with pytest.raises(NvmlError) as failure:
        nvml.product_name(first)
    assert failure.value.number == 27
    assert {failure.value}  # unlike pynvml's, ours can be kept in sets
    nvml.close()
    with pytest.raises(DriverGone):
        nvml.count()


def test_handles_of_one_gpu_have_one_address(bench):
    nvml = Nvml.open(str(bench.node(gpus=2).root))
    handles = [nvml.handle(i) for i in (0, 0, 1)]
    assert isinstance(handles[0], Handle)
    assert len({handle.address for handle in handles}) == 2
    nvml.close()


def test_two_nodes_in_one_process_are_told_apart(bench):
    for name, gpus in (("one", 1), ("two", 2)):
        node = bench.node(name, gpus=gpus)
        nvml = Nvml.open(str(node.root))
        assert (nvml.count(), nvml.file) == (gpus, str(node.library))
        nvml.close()


def test_nothing_found_is_our_own_error(tmp_path, monkeypatch):
    monkeypatch.setattr("device_api_nvml.loading.SONAME", "libnvidia-ml-none.so.1")
    with pytest.raises(LibraryNotFound, match="libnvidia-ml-none"):
        open_library(str(tmp_path))
