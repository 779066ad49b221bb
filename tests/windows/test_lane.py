"""The Windows lane: the project's tests that need no torch, run by a Windows CPython under Wine."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.server import Server
from so8t.cli import DEFAULT_CONFIG
from so8t.config import load_config
from tests.windows import lane, packages
from tests.windows.programs import DATABASE_VARIABLE, FLOWS, runs

TIMEOUT_S = 1500.0
# In every test run: what a power cut and a reader can do to files and state, seconds each.
SHORT = (
    "tests/windows/test_on_files.py",
    "tests/windows/test_on_system.py",
    "tests/test_durable.py",
    "tests/test_session.py",
    "tests/flows/test_resumption.py",
    "tests/autostart/test_task_rules.py",
)
# By hand (`pytest -m soak tests/windows`): what starts many processes.
PROCESSES = (
    "tests/windows/test_on_commands.py",
    "tests/windows/test_on_supervisor.py",
    "tests/autostart/test_command.py",
    "tests/autostart/test_windows.py",
    "tests/monitor/test_hang.py",
)
# By hand too: what else needs no torch.
LONG = (
    *(f"tests/test_{name}.py" for name in ("artifacts", "attempt", "births", "config", "notify", "sound", "thinking")),
    *(f"tests/collect/test_{name}.py" for name in ("download", "licence", "local", "query", "questions", "source")),
    *(f"tests/collect/web/test_{name}.py" for name in ("fetch", "robots", "text")),
    "tests/faults/test_recoveries.py",
    "tests/flows/test_fence.py",
    *(f"tests/preflight/test_{name}.py" for name in ("disk", "host", "hub", "profile")),
    *(
        f"tests/preprocess/test_{name}.py"
        for name in (
            "aozora", "balance", "contamination", "duplicates", "exact", "labeller", "leaks", "media", "pictures", "pii",
            "quality", "replies", "review", "shards",
        )
    ),
    "tests/serve/test_audit.py",
    *(f"tests/upload/test_{name}.py" for name in ("retry", "upload_rows")),
)  # fmt: skip
# What Wine or the lane lacks, by test; all else of these files must pass.
NOT_IN_WINE = {
    "tests/autostart/test_command.py::test_a_broken_config_does_not_hide_the_entry": "whoami /user",
    "tests/autostart/test_command.py::test_the_doctor_speaks_of_it": "whoami /user",
    "tests/autostart/test_command.py::test_two_homes_have_two_names_and_one_home_has_one": "names a POSIX path's hash",
    "tests/preflight/test_host.py::test_no_card_is_fine_where_none_is_needed": "torch's build",
    "tests/preflight/test_host.py::test_this_machine_s_card_and_torch_are_read_without_loading_torch": "torch's build",
    "tests/serve/test_audit.py::test_the_key_is_made_once_and_is_the_owners_alone": "POSIX modes",
    "tests/serve/test_audit.py::test_lines_are_appended_and_rotated_by_size_and_count": "POSIX modes",
}
WITHOUT = "not oracle and not soak and not realdata"
LONG_TIMEOUT_S = 3000.0


@dataclass(frozen=True)
class Outcome:
    """What became of one file's tests."""

    passed: int
    skipped: int
    failures: tuple[str, ...]


def _ready() -> lane.Lane:
    if missing := lane.lacking():
        pytest.skip(f"the Windows lane did not run: this machine lacks {'; '.join(missing)}")
    windows = lane.Lane(lane.folder())
    if pieces := windows.missing():
        pytest.skip(f"the Windows lane did not run: {windows.place} lacks {', '.join(pieces)}; {lane.COMMAND}")
    return windows


def _run(
    files: tuple[str, ...],
    folder: Path,
    *options: str,
    environment: dict[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Outcome]:
    """One pytest in Wine for all files; the outcome by file."""
    windows, report, output = _ready(), folder / "report.xml", folder / "output.txt"
    temporary = folder / "temporary"
    temporary.mkdir()
    # CI: hypothesis then gives no example a time limit, which a busy machine under Wine does not keep.
    places = {name: lane.windows_path(temporary) for name in ("TMP", "TEMP")} | {"CI": "true"}
    arguments = ["-m", "pytest", "-v", "-p", "no:cacheprovider", *options]
    arguments += [f"--deselect={test}" for test in NOT_IN_WINE]
    arguments += ["--junitxml", lane.windows_path(report), "--basetemp", lane.windows_path(folder / "base"), *files]
    try:
        code = windows.run(arguments, output, timeout_s, {**places, **(environment or {})})
    except subprocess.TimeoutExpired:
        code = -1
    text = output.read_text(encoding="utf-8", errors="replace")
    assert code in (0, 1), f"pytest under Wine ended with {code}:\n{text[-6000:]}"
    sys.stdout.write(text.splitlines()[-1] + "\n")
    cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - our own file
    return {file: _outcome(file, cases) for file in files}


def _outcome(file: str, cases: list[ET.Element]) -> Outcome:
    module = file.removesuffix(".py").replace("/", ".")
    own = [case for case in cases if f"{case.get('classname')}.".startswith(f"{module}.") or case.get("name") == module]
    bad = [case for case in own if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in own if case.find("skipped") is not None]
    words = tuple(f"{case.get('name')}:\n{''.join(part.text or '' for part in case)[-3000:]}" for case in bad)
    return Outcome(len(own) - len(bad) - len(skipped), len(skipped), words)


def _passed(outcome: Outcome) -> None:
    assert not outcome.failures, "\n\n".join(outcome.failures)
    assert outcome.passed > 0, "nothing ran"


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> dict[str, Outcome]:
    """The short files' outcomes."""
    return _run(SHORT, tmp_path_factory.mktemp("lane"))


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> dict[str, Outcome]:
    """The outcomes of the files that start many processes."""
    return _run(PROCESSES, tmp_path_factory.mktemp("lane"), "-m", WITHOUT, "--timeout", "600", timeout_s=LONG_TIMEOUT_S)


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> dict[str, Outcome]:
    """The long files' outcomes."""
    return _run(LONG, tmp_path_factory.mktemp("lane"), "-m", WITHOUT, "--timeout", "600", timeout_s=LONG_TIMEOUT_S)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> tuple[Path, str]:
    """The home of a server of this system, after flows that Windows' Python ran on it, and what those printed."""
    windows, folder = _ready(), tmp_path_factory.mktemp("served")
    home, output = folder / "home", folder / "output.txt"
    with Server(load_config(DEFAULT_CONFIG, ["machine.server_port=0"], home), folder / "server.log") as server:
        places = {"PREFECT_HOME": "prefect", "PREFECT_LOCAL_STORAGE_PATH": "storage", "SO8T_HOME": "home"}
        theirs = {name: lane.windows_path(folder / "windows" / place) for name, place in places.items()}
        code = windows.run(["-c", FLOWS], output, environment={**server.environment(), **theirs})
    text = output.read_text(encoding="utf-8", errors="replace")
    assert code == 0, text[-6000:]
    return home, text


@pytest.mark.soak
def test_flows_of_windows_on_a_server_of_this_system(served):
    home, text = served
    assert "sum 12" in text
    assert {("numbers", "Completed"), ("so8t-monitor", "Completed")} <= runs(home)


@pytest.mark.soak
def test_flows_of_windows_on_a_server_of_windows(served, tmp_path):
    """Its tables are those that Prefect made here."""
    file = "tests/windows/test_on_flow.py"
    made = {DATABASE_VARIABLE: lane.windows_path(served[0] / "prefect" / "prefect.db")}
    _passed(_run((file,), tmp_path, environment=made)[file])


@pytest.mark.parametrize("file", SHORT)
def test_under_windows(short, file):
    _passed(short[file])


@pytest.mark.soak
@pytest.mark.timeout(LONG_TIMEOUT_S + 60)
@pytest.mark.parametrize("file", PROCESSES)
def test_processes_under_windows(processes, file):
    _passed(processes[file])


@pytest.mark.soak
@pytest.mark.timeout(LONG_TIMEOUT_S + 60)
@pytest.mark.parametrize("file", LONG)
def test_under_windows_at_length(long, file):
    _passed(long[file])


def test_the_packages_are_pinned_and_windows_own():
    """Dependencies are followed with Windows' markers, on whatever system this runs."""
    wanted = packages.wanted()
    names = {each.partition("==")[0] for each in wanted}
    assert {"prefect", "pytest", "colorama", "numpy", "tzdata"} <= names
    assert not names & {"torch", "uvloop", "pywin32"}
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", each) for each in wanted)


def test_a_folder_of_somebody_else_is_not_removed(tmp_path):
    """The variable may name a folder in which such a name is taken: a stamped one alone is made anew."""
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix" / "mine").touch()
    with pytest.raises(RuntimeError, match="left alone"):
        lane.Lane(tmp_path).setup(lambda words: None)
    assert (tmp_path / "prefix" / "mine").exists()


def test_an_unfinished_piece_is_missing(tmp_path):
    """Only a piece that was renamed, with the stamp of its recipe, counts."""
    windows = lane.Lane(tmp_path)
    (tmp_path / "prefix.partial").mkdir()
    (tmp_path / "prefix").mkdir()
    assert windows.missing() == ["prefix", "python", "site-packages"]
    (tmp_path / "prefix" / lane.STAMP).write_text('{"recipe": "another"}', encoding="utf-8")
    assert "prefix" in windows.missing()
    stamp = f'{{"recipe": "{lane._digest(lane.WINDOWS_VERSION)}"}}'
    (tmp_path / "prefix" / lane.STAMP).write_text(stamp, encoding="utf-8")
    assert windows.missing() == ["python", "site-packages"]
