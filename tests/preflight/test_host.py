"""The machine's own settings, from what its programs print (recorded words) and from this one."""

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from so8t.config import load_config
from so8t.plan.hardware import Machine
from so8t.preflight import gpu, host
from so8t.preflight import scene as prepared
from so8t.preflight.finding import Finding, demand
from so8t.preflight.look import LASTS
from so8t.preflight.scene import set_scene
from tests.conftest import ROOT

GERMAN = """\
GUID des Energieschemas: 381b4222-f694-41f0-9685-ff5bb260df2e  (Ausbalanciert)
    GUID der Energieeinstellung: 29f6c1db-86da-48c5-9fdb-f2b67b1f44da  (Deaktivierung nach)
      Minimal moegliche Einstellung: 0x00000000
      Maximal moegliche Einstellung: 0xffffffff
    Aktueller Wechselstromindex: 0x00000708
    Aktueller Gleichstromindex: 0x00000384
"""
MAC = """\
Battery Power:
 displaysleep         2
 sleep                1
AC Power:
 displaysleep         10
 sleep                0
"""


def test_versions_that_drifted_are_named(tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(
        f"# a set\npsutil=={version('psutil')}\nfilelock==0.0.1\nnot-installed==1\n", encoding="utf-8"
    )
    found = host.check_packages(constraints)
    assert (found.state, found.found) == ("warn", f"filelock {version('filelock')} instead of 0.0.1")
    constraints.write_text(f"psutil=={version('psutil')}\n", encoding="utf-8")
    assert host.check_packages(constraints).state == "ok"
    assert host.check_packages(tmp_path / "none").state == "not looked at"


def test_a_torchvision_of_another_build_is_a_fault(tmp_path, monkeypatch):
    installed = {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}
    here = [SimpleNamespace(metadata={"Name": name}, version=text) for name, text in installed.items()]
    monkeypatch.setattr(host.importlib.metadata, "distributions", lambda: here)
    (tmp_path / "constraints.txt").write_text("", encoding="utf-8")
    assert host.check_packages(tmp_path / "constraints.txt").stops


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (host.read_powercfg(GERMAN), 1800.0),
        (host.read_powercfg(GERMAN.replace("00000708", "00000000")), 0.0),
        (host.read_powercfg("Zugriff verweigert"), None),
        (host.read_pmset(MAC), 0.0),
        (host.read_pmset(MAC.replace("sleep                0", "sleep                15")), 900.0),
        (host.read_pmset(""), None),
    ],
)
def test_sleep_on_mains_is_read_in_any_language(told, seconds):
    assert told[0] == seconds


def test_the_last_idle_action_counts(tmp_path):
    first, second = tmp_path / "logind.conf", tmp_path / "own.conf"
    assert host.read_logind([first])[0] is None
    first.write_text("[Login]\n#IdleAction=suspend\n", encoding="utf-8")
    assert host.read_logind([first])[0] == 0.0
    second.write_text("[Login]\nIdleAction=suspend\n", encoding="utf-8")
    assert host.read_logind([first, second])[0]


def test_a_home_is_tried_by_writing(tmp_path):
    config = load_config(ROOT / "configs" / "demo.yaml", (), tmp_path / "file" / "home")
    assert host.check_home(set_scene(config, LASTS["pipeline"])).state == "ok"
    (tmp_path / "plain").write_bytes(b"")
    config = load_config(ROOT / "configs" / "demo.yaml", (), tmp_path / "plain" / "home")
    assert host.check_home(SimpleNamespace(store=SimpleNamespace(home=config.home()))).stops
    assert list((tmp_path / "file" / "home").iterdir()) == [], "the probe is gone"


def test_two_looks_at_a_home_do_not_take_each_other_s_probe(tmp_path):
    config = load_config(ROOT / "configs" / "demo.yaml", (), tmp_path / "home")
    asked = SimpleNamespace(store=SimpleNamespace(home=config.home()))
    with ThreadPoolExecutor(8) as pool:
        found = {one.state for one in pool.map(lambda _: host.check_home(asked), range(400))}
    assert found == {"ok"}


def scene(tmp_path, device: str, name: str = "borea_phi35"):
    return set_scene(
        load_config(ROOT / "configs" / f"{name}.yaml", [f"machine.device={device}"], tmp_path), LASTS["pipeline"]
    )


@pytest.mark.parametrize(
    ("built", "device", "state"),
    [
        (("2.13.0+cpu", ""), "auto", "warn"),
        (("2.13.0+cpu", ""), "cuda", "fail"),
        (("2.13.0", "13.0"), "auto", "ok"),
        (("2.13.0", "12.8"), "cuda", "ok"),
        (("2.13.0", "14.0"), "auto", "fail"),
        (("", ""), "auto", "fail"),
        (("2.13.0+cpu", ""), "cpu", "ok"),
    ],
)
def test_torch_must_be_built_for_what_the_driver_serves(tmp_path, monkeypatch, built, device, state):
    monkeypatch.setattr(gpu, "torch_build", lambda: built)
    card = gpu.Card("RTX 3060", "580.12", (13, 0), 12 << 30, 11 << 30)
    assert gpu.check(scene(tmp_path, device), card, "").state == state


@pytest.mark.parametrize(
    ("name", "device", "state"), [("borea_phi35", "auto", "warn"), ("demo", "auto", "ok"), ("demo", "cuda", "fail")]
)
def test_no_card_is_fine_where_none_is_needed(tmp_path, name, device, state):
    assert gpu.check(scene(tmp_path, device, name), None, "no NVIDIA driver").state == state


def test_this_machine_s_card_and_torch_are_read_without_loading_torch():
    """In a process of its own: this one may have loaded it already."""
    import subprocess

    code = (
        "import sys; from so8t.preflight import gpu; card, why = gpu.read_card(); print(bool(card) or why, gpu.torch_build());"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8"
    )
    assert version("torch") in done.stdout


def test_a_driver_is_read_as_nvml_tells_it(monkeypatch):
    import pynvml

    told = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=12 << 30, free=10 << 30),
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 12080,
        "nvmlDeviceGetName": lambda handle: "RTX 3060",
        "nvmlSystemGetDriverVersion": lambda: "570.86",
    }
    for name, answer in told.items():
        monkeypatch.setattr(pynvml, name, answer)
    assert gpu.read_card() == (gpu.Card("RTX 3060", "570.86", (12, 8), 12 << 30, 10 << 30), "")

    def lost(handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lost)
    card, why = gpu.read_card()
    assert card is None
    assert "does not answer" in why
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)
    assert gpu.read_card() == (None, "the NVIDIA driver has no GPU")


def test_a_card_that_torch_cannot_use_counts_for_nothing(tmp_path, monkeypatch):
    found = Machine("RTX 3060", 12 << 30, 32 << 30, 1 << 40, 8)
    monkeypatch.setattr(prepared, "detect", lambda home: found)
    config = load_config(ROOT / "configs" / "borea_phi35.yaml", (), tmp_path)
    assert set_scene(config, LASTS["pipeline"]).shapes.on_gpu
    assert not set_scene(config, LASTS["pipeline"], cuda=False).shapes.on_gpu


def test_all_that_stops_is_said_at_once():
    from so8t.errors import ResourceError

    findings = [
        Finding("disk", "fail", "1 GiB free", "5 GiB", "free some"),
        Finding("token", "fail", "none", "one", "log in"),
        Finding("hub", "fail", "silent", "the Hub", "wait", passing=True),
        Finding("power", "warn", "sleeps", "none", "wake it"),
    ]
    with pytest.raises(ResourceError) as refused:
        demand(findings)
    assert (refused.value.exit_code, refused.value.found) == (2, "disk: 1 GiB free; token: none")
    demand(findings[2:])
