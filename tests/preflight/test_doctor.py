"""`so8t doctor` as a user runs it, and what a run does with what it finds."""

import pytest

from deployments.autostart.logon import of_linger, of_winlogon
from so8t.artifacts import Store
from tests.conftest import TINY, command, run
from tests.test_bad_input import _mounted

SHOWN = {"check", "state", "found", "wanted", "do", "passing"}


def test_the_demo_s_doctor(tmp_path):
    ended = command("doctor", "--json", home=tmp_path / "home")
    assert ended.code == 0, ended.out + ended.err
    told = ended.json
    assert told["overrides"] == {}
    by_name = {finding["check"]: finding for finding in told["findings"]}
    assert all(set(finding) == SHOWN for finding in told["findings"])
    wanted = {
        "python", "packages", "llama.cpp", "encodings", "long paths", "home", "disk", "memory", "gpu", "power", "clock", "hub",
        "token", "licence", "server", "autostart", "logon",
    }  # fmt: skip
    assert set(by_name) == wanted
    assert by_name["hub"]["state"] == by_name["token"]["state"] == "not looked at", "the demo needs neither"
    assert all(finding["do"] for finding in told["findings"] if finding["state"] == "fail")


def test_what_would_stop_a_run_is_exit_code_1_and_says_what_to_do(tmp_path):
    ended = command("doctor", "--set", "upload.target={kind: hub, repo_id: a/b}", home=tmp_path / "home",
                    environment={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "", "HF_HOME": str(tmp_path)})  # fmt: skip
    assert ended.code == 1
    (line,) = [line for line in ended.out.splitlines() if line.startswith("fail") and " token " in line]
    after = ended.out.splitlines()[ended.out.splitlines().index(line) + 1 :][:2]
    assert "wanted: one that may write" in after[0]
    assert "hf auth login" in after[1]


@pytest.mark.soak
def test_too_little_disk_stops_a_run_at_its_start(tmp_path):
    """On a real small volume, through the server and the flow; nothing was made."""
    with _mounted(tmp_path / "small", "size=120m") as small:
        ended = run(*TINY, home=small / "home")
        assert ended.code == 2, ended.err[-3000:]
        assert "still needed" in ended.err
        assert "wanted:" in ended.err
        assert "do:" in ended.err
        assert ended.json["state"] == "failed"
        assert list(Store(small / "home").folders()) == []


@pytest.mark.parametrize(
    ("value", "user", "state"), [("1", "me", "ok"), ("1", None, "warn"), ("0", "me", "warn"), (None, None, "warn")]
)
def test_automatic_logon_of_windows(value, user, state):
    assert of_winlogon(value, user).state == state


@pytest.mark.parametrize(("word", "state"), [("on", "ok"), ("off", "warn"), ("unknown", "not looked at")])
def test_lingering_of_systemd(word, state):
    assert of_linger(word).state == state


def test_no_password_is_ever_asked_for():
    from deployments.autostart import logon
    from tests.conftest import ROOT

    text = (ROOT / "deployments" / "autostart" / "logon.py").read_text(encoding="utf-8")
    assert "DefaultPassword" not in text
    assert logon.WINLOGON.endswith("Winlogon")
