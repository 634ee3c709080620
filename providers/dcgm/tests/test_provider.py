"""What the daemon is told, by a provider that scrapes a real server."""

from __future__ import annotations

import logging
import re
import threading
import time
import tomllib
from pathlib import Path

import pytest
from device_api_dcgm.health import TYPES
from device_api_dcgm.options import DcgmOptions
from device_api_dcgm.plugin import device_api_commands, device_api_provider
from device_api_dcgm.provider import DcgmProvider

from device_api_core.errors import LimitExceeded, SettingsError
from device_api_core.resources import GpuSpec
from device_api_core.series import Series

NVLINK = "DCGMNvlinkHealthy"


def ready(bench, exporter, sink=None, **options):
    running = bench.start(exporter, sink, **options)
    running.sink.wait(lambda: running.sink.syncs)
    return running.sink


def test_every_gpu_is_registered_with_what_the_exporter_says(bench, scene):
    sink = ready(bench, bench.exporter())
    assert sorted(sink.specs) == [scene.name(gpu) for gpu in range(8)]
    spec = sink.specs[scene.name(3)]
    assert spec.uuid == scene.uuid(3)
    assert (spec.index, spec.minor, spec.pci_bus_id) == (3, 3, "0000:1e:00.0")
    assert spec.product_name == "NVIDIA H100 80GB HBM3"
    for gpu in sink.specs:
        assert {sink.get(gpu, type_) for type_ in TYPES} == {("True", "Pass")}
    sink.rounds()
    assert sink.syncs == 1


def test_the_sample_is_told(bench, sample):
    sink = ready(bench, bench.exporter(sample))
    by_index = {spec.index: gpu for gpu, spec in sink.specs.items()}
    assert sink.get(by_index[4]) == ("False", "Xid79")
    assert sink.statuses[by_index[4]][1] == "RESTART_BM"
    assert sink.get(by_index[6], "DCGMMemHealthy") == ("False", "VolatileDbeDetected")
    # Its health series names two GPUs only.
    assert sink.get(by_index[0]) == ("True", "PartialSeries")


def test_a_fault_comes_and_a_level_fault_goes(bench, scene):
    exporter = bench.exporter()
    sink = ready(bench, exporter)
    exporter.body = scene.watch(2, "NVLINK", 20, "NVLINK_DOWN").bytes
    sink.wait_for(scene.name(2), NVLINK, "False", "NvlinkDown")
    assert sink.statuses[scene.name(2)][1] == "RESTART_VM"
    exporter.body = scene.watch(2, "NVLINK").bytes
    sink.wait_for(scene.name(2), NVLINK, "True", "Pass")
    assert sink.statuses[scene.name(2)][1] == ""
    assert {sink.get(scene.name(gpu)) for gpu in range(8)} == {("True", "Pass")}


def failing(status):
    def answer(handler):
        handler.send_response(status)
        handler.end_headers()

    return answer


@pytest.mark.parametrize("how", ["500", "empty", "garbage", "no GPU", "latin-1", "hang", "cut"])
def test_a_failing_scrape_makes_true_unknown_after_three_and_never_more(bench, scene, how):
    exporter = bench.exporter(scene.xid(1, 79).bytes)
    sink = ready(bench, exporter, read_seconds=0.05 if how == "hang" else 5.0)
    before, said = dict(sink.statuses), len(sink.said)
    rounds = len(sink.summaries)
    good = exporter.body
    body = {
        "empty": b"",
        "garbage": b"\x00\xff\xfe\x1f\x8b" * 1000 + b"\n",
        "no GPU": b"go_threads 8\n",
        "latin-1": b'# HELP x \xe4\nx{y="\xe9"} 1\n',
        "cut": good[: len(good) // 2 + 7],
    }
    if how in body:
        exporter.body = body[how]
    else:
        exporter.answer = failing(500) if how == "500" else exporter.hang
    sink.wait_for(scene.name(0), "DCGMHealth", "Unknown", "ScrapeFailed")
    assert sink.get(scene.name(0), NVLINK) == ("Unknown", "ScrapeFailed")
    assert sink.get(scene.name(1)) == ("False", "Xid79")
    assert sink.statuses[scene.name(1)][1] == before[scene.name(1)][1] == "RESTART_BM"
    failed = [s for s in sink.summaries[rounds:] if "in a row" in s]
    assert any("2 in a row" in summary for summary in failed)
    assert len(sink.specs) == 8
    sink.rounds(3)
    unknown = sink.said.index((scene.name(0), "DCGMHealth", "Unknown"), said)
    assert {status for _, _, status in sink.said[unknown + 8 * 12 :]} == {"Unknown", "False"}
    exporter.released.set()
    exporter.body, exporter.answer = good, exporter.serve
    sink.wait_for(scene.name(0), "DCGMHealth", "True", "Pass")
    assert sink.get(scene.name(1)) == ("False", "Xid79")


def test_scrapes_are_counted_and_absent_series_named(bench, scene):
    exporter = bench.exporter()
    exporter.answer = failing(500)
    sink = bench.start(exporter).sink
    sink.rounds(2)
    exporter.body, exporter.answer = b"", exporter.serve
    errors = Series("scrape_errors", (("kind", "empty"),))
    sink.wait(lambda: errors in sink.tally.read().counts)
    seen = sink.tally.read()
    assert seen.counts[Series("scrape_errors", (("kind", "status"),))] >= 2
    assert seen.gauges == {}, "never scraped"
    began = time.time()
    exporter.body = scene.drop("DCGM_EXP_GPU_HEALTH_STATUS").bytes
    sink.wait(lambda: sink.syncs)
    seen = sink.tally.read()
    assert began <= seen.gauges.pop(Series("last_scrape_timestamp_seconds")) <= time.time()
    absent = {dict(series.labels)["series"]: value for series, value in seen.gauges.items()}
    assert {name for name, value in absent.items() if value} == {"DCGM_EXP_GPU_HEALTH_STATUS"}
    assert len(absent) > 5
    sink.rounds(2)
    assert sink.tally.read().counts == seen.counts


def test_one_empty_body_changes_nothing(bench, scene):
    exporter = bench.exporter()
    sink = ready(bench, exporter)
    before = dict(sink.statuses)
    served = []

    def reload(handler):
        exporter.body = b"" if len(served) % 3 == 0 else scene.bytes
        served.append(exporter.body)
        exporter.serve(handler)

    exporter.answer = reload
    sink.wait(lambda: len(served) > 9)
    assert sink.statuses == before
    assert "the answer is empty" in sink.summaries[-1]


def test_nothing_is_said_before_the_first_good_scrape(bench, scene):
    exporter = bench.exporter(b"")
    sink = bench.start(exporter).sink
    sink.rounds(5)
    assert (sink.syncs, sink.specs) == (0, {})
    assert sink.summaries[-1].startswith("not scraped yet; failed scrapes: ")
    exporter.body = scene.bytes
    sink.wait(lambda: sink.syncs)
    assert len(sink.specs) == 8


def test_a_gpu_that_vanishes_is_unknown(bench, scene):
    exporter = bench.exporter()
    sink = ready(bench, exporter)
    exporter.body = scene.drop(gpu=5).bytes
    sink.wait_for(scene.name(5), "DCGMHealth", "Unknown", "GpuNotReported")
    assert sink.get(scene.name(5), NVLINK) == ("Unknown", "GpuNotReported")
    assert sink.get(scene.name(4)) == ("True", "Pass")
    sink.forget(scene.name(5))
    sink.rounds(4)
    assert scene.name(5) not in sink.specs


def test_a_gpu_that_was_forgotten_but_is_there_comes_back(bench, scene):
    sink = ready(bench, bench.exporter())
    sink.forget(scene.name(5))
    sink.wait(lambda: sink.get(scene.name(5)) == ("True", "Pass"))


def test_gpus_of_others_are_waited_for_if_none_may_be_registered(bench, scene):
    exporter = bench.exporter()
    sink = ready(bench, exporter, register_gpus=False)
    sink.rounds()
    assert sink.specs == {}
    assert "GPUs not taken by the daemon: 8" in sink.summaries[-1]
    sink.register(scene.name(1), GpuSpec())
    sink.wait_for(scene.name(1), "DCGMHealth", "True", "Pass")
    assert list(sink.specs) == [scene.name(1)]


def test_a_refusal_of_the_daemon_is_survived(bench, scene):
    exporter = bench.exporter()
    sink = bench.start(exporter).sink
    real, full = sink.register, [True]

    def refuse(gpu, spec):
        if full[0] and gpu == scene.name(7):
            raise LimitExceeded("1024 GPUs are the limit")
        return real(gpu, spec)

    sink.register = refuse
    sink.wait(lambda: sink.summaries and "not taken by the daemon: 1" in sink.summaries[-1])
    assert sink.get(scene.name(6)) == ("True", "Pass")
    full[0] = False
    sink.wait_for(scene.name(7), "DCGMHealth", "True", "Pass")


def test_default_counters_are_named_loudly_and_once(bench, scene, caplog):
    caplog.set_level(logging.INFO)
    exporter = bench.exporter(scene.drop("DCGM_EXP_GPU_HEALTH_STATUS").bytes)
    sink = ready(bench, exporter)
    sink.rounds(4)
    loud = [r for r in caplog.records if "does not report DCGM_EXP_GPU_HEALTH" in r.getMessage()]
    assert [r.levelname for r in loud] == ["WARNING"]
    assert "device-api dcgm counters" in loud[0].getMessage()
    assert "absent series: DCGM_EXP_GPU_HEALTH_STATUS" in sink.summaries[-1]
    assert sink.get(scene.name(0)) == ("True", "PartialSeries")


def test_the_summary(bench):
    exporter = bench.exporter()
    sink = ready(bench, exporter)
    sink.rounds()
    assert re.fullmatch(r"scraped \d s ago, 8 GPUs", sink.summaries[-1])
    exporter.answer = failing(503)
    wanted = "8 GPUs; failed scrapes: 3, 3 in a row, last: HTTP 503"
    sink.wait(lambda: any(summary.endswith(wanted) for summary in sink.summaries))
    assert all("\n" not in summary for summary in sink.summaries)


def test_latched_faults_outlast_a_restart_and_an_operator_ends_them(bench, scene, make_scene):
    exporter = bench.exporter(scene.xid(1, 79).watch(1, "ALL", 20, "FALLEN_OFF_BUS").bytes)
    running = bench.start(exporter)
    running.sink.wait(lambda: running.sink.syncs)
    running.stop()
    exporter.body = make_scene().watch(1, "ALL", 20, "FALLEN_OFF_BUS").bytes
    again = bench.start(exporter, running.sink.restarted())
    sink, gpu = again.sink, scene.name(1)
    sink.wait(lambda: sink.syncs)
    sink.rounds(10)
    assert sink.get(gpu) == ("False", "Xid79")
    assert sink.get(gpu, "DCGMAllHealthy") == ("False", "FallenOffBus")
    again.provider.clear(gpu, "DCGMHealth")
    again.provider.clear("gpu-unknown", "DCGMHealth")
    sink.wait_for(gpu, "DCGMHealth", "True", "Pass")
    assert sink.get(gpu, "DCGMAllHealthy") == ("True", "Overruled")
    again.stop()
    # The ALL watch fails on: what was overruled once is so after a restart too.
    third = ready(bench, exporter, sink.restarted())
    third.rounds()
    assert third.get(gpu, "DCGMAllHealthy") == ("True", "Overruled")
    assert third.get(gpu) == ("True", "Pass")


def test_a_restart_while_the_exporter_is_down_keeps_the_faults(bench, scene):
    exporter = bench.exporter(scene.xid(1, 79).bytes)
    running = bench.start(exporter)
    running.sink.wait(lambda: running.sink.syncs)
    running.stop()
    exporter.answer = failing(500)
    sink = bench.start(exporter, running.sink.restarted()).sink
    sink.wait_for(scene.name(0), "DCGMHealth", "Unknown", "ScrapeFailed")
    assert sink.get(scene.name(1)) == ("False", "Xid79")
    assert sink.statuses[scene.name(1)][1] == "RESTART_BM"
    assert sink.syncs == 0


def test_stop_is_prompt_in_every_state(bench):
    exporter = bench.exporter()
    running = bench.start(exporter, interval_seconds=60.0)
    running.sink.wait(lambda: running.sink.syncs)
    assert running.stop() < 2.0
    hanging = bench.start(exporter, read_seconds=60.0, timeout_seconds=60.0)
    reached = threading.Event()
    exporter.answer = lambda handler: (reached.set(), exporter.hang(handler))
    assert reached.wait(5.0)
    assert hanging.stop() < 2.0


def test_a_closed_sink_ends_the_provider(bench):
    running = bench.start(bench.exporter())
    running.sink.wait(lambda: running.sink.syncs)
    running.sink.closed = True
    running.join()


def test_secrets_are_never_logged(bench, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "token"
    file.write_text("t0ps3cret")
    exporter = bench.exporter()
    url = exporter.url + "?token=t0ps3cret"
    sink = ready(bench, exporter, url=url, bearer_token_file=str(file))
    exporter.answer = failing(401)
    sink.wait(lambda: "3 in a row" in sink.summaries[-1])
    ours = [r for r in caplog.records if r.name.startswith("device_api")]
    everything = f"{[vars(r) for r in ours]}{sink.summaries}{sink.statuses}"
    assert "HTTP 401" in everything
    assert "t0ps3cret" not in everything


def test_a_reload_of_the_counters_file_is_noticed(bench, scene, caplog):
    caplog.set_level(logging.INFO)
    good = scene.bytes
    exporter = bench.exporter(scene.drop("DCGM_EXP_GPU_HEALTH_STATUS").bytes)
    sink = ready(bench, exporter)
    exporter.body = good
    sink.wait_for(scene.name(0), "DCGMHealth", "True", "Pass")
    assert any("reports DCGM_EXP_GPU_HEALTH_STATUS now" in r.getMessage() for r in caplog.records)


def test_the_hooks(tmp_path):
    provider = device_api_provider({"interval_seconds": 5, "url": "http://x/m"}, str(tmp_path))
    assert isinstance(provider, DcgmProvider)
    assert provider.name == "dcgm"
    assert provider.contract_version == 1
    assert provider.interval_seconds == 5 + 8
    assert provider.types[0] == "DCGMHealth"
    assert len(provider.types) == 12
    assert device_api_commands().name == "dcgm"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match="unknown option 'urls'"):
        device_api_provider({"urls": ""}, "")


def test_every_setting_is_documented():
    page = Path(__file__).parents[3] / "docs" / "providers" / "dcgm.md"
    text = page.read_text(encoding="utf-8")
    for name in [*DcgmOptions.__dataclass_fields__, *TYPES]:
        assert f"`{name}`" in text, name
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["device_api.providers"] == {
        "dcgm": "device_api_dcgm.plugin"
    }
