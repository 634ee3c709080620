"""The units for nodes without Kubernetes: valid, hardened, and of one mind with the server."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from device_api_core.configuration import read_file
from device_api_core.plugins.discovery import load
from device_api_core.settings import Settings

UNITS = Path(__file__).resolve().parents[1] / "contrib" / "systemd"
SERVER = "device-api-server.service"
PROVIDER = "device-api-provider@.service"
PUBLISHER = "device-api-kubernetes-publisher.service"
INSTALLED = "/opt/device-api/bin"
MOST_EXPOSURE = 16
"""Tenths, of systemd's own 0 (safe) to 10; its word for up to 2.0 is OK."""

needs_systemd = pytest.mark.skipif(
    not (shutil.which("systemd-analyze") or os.environ.get("CI")),
    reason="systemd-analyze is not installed",
)


@pytest.fixture
def installed(tmp_path):
    """The units as they would lie in /etc/systemd/system, for the programs of this environment."""
    for unit in (SERVER, PROVIDER, PUBLISHER):
        text = (UNITS / unit).read_text(encoding="utf-8")
        here = str(Path(sys.executable).parent)
        (tmp_path / unit).write_text(text.replace(INSTALLED, here), encoding="utf-8")
    return tmp_path


def analyze(*arguments):
    environment = {**os.environ, "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_systemd
def test_systemd_understands_every_line(installed):
    instance = str(installed / PROVIDER).replace("@", "@nvml")
    units = (installed / SERVER, instance, installed / PUBLISHER)
    result = analyze("verify", "--man=no", *units)
    # What it does not know it only mentions.
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
def test_a_line_it_does_not_understand_would_be_noticed(installed):
    unit = installed / SERVER
    unit.write_text(unit.read_text().replace("WatchdogSec", "WatchdogSecs"))
    assert "WatchdogSecs" in analyze("verify", "--man=no", unit).stderr


@needs_systemd
@pytest.mark.parametrize("unit", [SERVER, PROVIDER, PUBLISHER])
def test_little_is_exposed(installed, unit):
    threshold = f"--threshold={MOST_EXPOSURE}"
    result = analyze("security", "--offline=true", threshold, installed / unit)
    assert result.returncode == 0, result.stdout


@needs_systemd
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make users and give directories away")
def test_the_directories_belong_to_the_user_that_the_units_name(tmp_path):
    for folder in ("etc", "run"):
        (tmp_path / folder).mkdir()
    root = f"--root={tmp_path}"
    subprocess.run(["systemd-sysusers", root, UNITS / "sysusers.conf"], check=True)
    subprocess.run(["systemd-tmpfiles", root, "--create", UNITS / "tmpfiles.conf"], check=True)
    passwd = (tmp_path / "etc/passwd").read_text()
    (uid, gid) = re.search(r"^device-api:x:(\d+):(\d+):", passwd, re.M).groups()
    for name, mode in (("device-api", 0o40755), ("device-api-provider", 0o40700)):
        found = (tmp_path / "run" / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode) == (int(uid), int(gid), mode)


def service(unit):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(UNITS / unit)
    return dict(parser["Service"])


def test_the_example_configuration_is_one_and_uses_what_the_unit_may_write():
    settings = Settings(**read_file(str(UNITS / "server.toml")))
    unit = service(SERVER)
    writable = [*unit["ReadWritePaths"].split(), f"/var/lib/{unit['StateDirectory']}"]
    for path in (settings.unix_socket, settings.provider_socket, f"{settings.state_dir}/x"):
        assert str(Path(path).parent) in writable
    for name in settings.provider:
        assert not load(name, settings.provider_options.get(name, {}), state_dir="").error
    provider = service(PROVIDER)
    assert f"unix://{settings.provider_socket}" in provider["ExecStart"]
    assert str(Path(settings.provider_socket).parent) in provider["ReadWritePaths"].split()
    assert f"/var/lib/{provider['StateDirectory']}" in provider["ExecStart"]
    stop = settings.shutdown_delay + settings.shutdown_timeout
    assert int(unit["TimeoutStopSec"]) > stop


def test_the_units_are_hardened_alike():
    server, provider, publisher = service(SERVER), service(PROVIDER), service(PUBLISHER)
    first = list(server).index("NoNewPrivileges")
    for key in list(server)[first:]:
        if key != "TasksMax":
            assert server[key] == provider[key], key
        # It has no device at all, where they have the driver's.
        if key not in ("TasksMax", "MemoryMax", "DevicePolicy", "DeviceAllow"):
            assert server[key] == publisher[key], key
    assert publisher["PrivateDevices"] == "yes"


def test_the_publisher_reads_as_a_consumer_and_alone_has_its_token():
    settings = Settings(**read_file(str(UNITS / "server.toml")))
    unit = service(PUBLISHER)
    assert unit["Environment"] == f"NVIDIA_DEVICE_API=unix://{settings.unix_socket}"
    # A user of its own: the server's could read all that belongs to it, and it the server's.
    assert (unit["DynamicUser"], unit["SupplementaryGroups"]) == ("yes", service(SERVER)["Group"])
    assert "User" not in unit
    assert "ReadWritePaths" not in unit
    assert unit["LoadCredential"].startswith("token:/etc/device-api/")
