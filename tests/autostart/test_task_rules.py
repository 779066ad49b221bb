"""The Task Scheduler definition against our rules: the one we make passes, every invalid change of it is refused."""

import copy
import subprocess
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.autostart.entry import Entry
from deployments.autostart.task_rules import (
    NAMESPACE,
    PATH_CHARS_MAX,
    check_definition,
    check_task,
    parse,
    split_command,
)
from deployments.autostart.windows import render
from tests.conftest import ROOT

HEAD = '<?xml version="1.0" encoding="UTF-16"?>\n'
ACCOUNT = "DESKTOP-1\\山田"
# Absent, these count as what is wanted; any text may describe a task.
HARMLESS = {
    "delete RegistrationInfo", "delete RegistrationInfo/Description", "empty RegistrationInfo",
    "junk RegistrationInfo/Description",
    "delete Triggers/LogonTrigger/Enabled", "delete Triggers/TimeTrigger/Enabled",
    "delete Triggers/TimeTrigger/Repetition/StopAtDurationEnd",
    "delete Principals/Principal/RunLevel",
    "delete Settings/MultipleInstancesPolicy", "delete Settings/AllowHardTerminate",
    "delete Settings/RunOnlyIfNetworkAvailable", "delete Settings/IdleSettings/RestartOnIdle",
    "delete Settings/AllowStartOnDemand", "delete Settings/Enabled", "delete Settings/Hidden",
    "delete Settings/RunOnlyIfIdle", "delete Settings/WakeToRun",
}  # fmt: skip
BAD_VALUES = {
    "Triggers/LogonTrigger/Enabled": ["false", "True", " true", "yes"],
    "Triggers/LogonTrigger/UserId": ["DESKTOP-1\\other", "SYSTEM", "NT AUTHORITY\\SYSTEM", "S-1-5-18", " "],
    "Triggers/TimeTrigger/Enabled": ["false", "0"],
    "Triggers/TimeTrigger/StartBoundary": ["2999-01-01T00:00:00", "2000-01-01", "2000-13-01T00:00:00", "now"],
    "Triggers/TimeTrigger/Repetition/Interval": ["PT59S", "PT0S", "PT61M", "P1D", "P31D", "P32D", "PT", "P", "15M", "PT15m", "-PT15M"],
    "Triggers/TimeTrigger/Repetition/StopAtDurationEnd": ["true"],
    "Principals/Principal/UserId": ["DESKTOP-1\\other", "LocalService", "S-1-5-19", "s-1-5-20", "NT AUTHORITY\\NETWORK SERVICE"],
    "Principals/Principal/LogonType": ["Password", "S4U", "None", "Group", "ServiceAccount", "InteractiveTokenOrPassword", "interactivetoken"],
    "Principals/Principal/RunLevel": ["HighestAvailable", "leastprivilege"],
    "Settings/MultipleInstancesPolicy": ["Parallel", "Queue", "StopExisting"],
    "Settings/DisallowStartIfOnBatteries": ["true", "1"],
    "Settings/StopIfGoingOnBatteries": ["true", "1"],
    "Settings/AllowHardTerminate": ["maybe"],
    "Settings/StartWhenAvailable": ["false"],
    "Settings/RunOnlyIfNetworkAvailable": ["sometimes", "2"],
    "Settings/IdleSettings/StopOnIdleEnd": ["true"],
    "Settings/AllowStartOnDemand": ["false"],
    "Settings/Enabled": ["false"],
    "Settings/Hidden": ["true"],
    "Settings/RunOnlyIfIdle": ["true"],
    "Settings/WakeToRun": ["true"],
    "Settings/ExecutionTimeLimit": ["PT72H", "PT1S", "P3D", "0", "PT0", "P0"],
    "Settings/Priority": ["0", "1", "3", "7", "10", "11", "-1", "6.0", " 6", "６"],
    "Settings/RestartOnFailure/Interval": ["PT59S", "P31DT1S", "P1M", "P1Y"],
    "Settings/RestartOnFailure/Count": ["0", "256", "-1", "3.0", "1e1"],
    "Actions/Exec/Command": ["python.exe", "x" * (PATH_CHARS_MAX + 1), "/" + "x" * PATH_CHARS_MAX, '"C:\\p y\\python.exe"', "%LOCALAPPDATA%\\python.exe", "C:\\$(Arg0)\\python.exe", "C:python.exe"],
    "Actions/Exec/WorkingDirectory": [".", "C:\\" + "x" * PATH_CHARS_MAX, '"C:\\a b"', "%USERPROFILE%\\so8t", "\\so8t"],
    "Actions/Exec/Arguments": [
        "-m deployments.command up", "-m deployments.command run --config /a --home /b",
        "-m other up --config /a --home /b", "-m deployments.command up --config a --home /b",
        "-m deployments.command up --config /a --home b", "-m deployments.command up --home /b",
        "-m deployments.command up --config /%TEMP%/a --home /b", "-m deployments.command up --config /$(Arg0) --home /b",
        "-m deployments.command up --config /a --home /b --set upload.token=hf_abcdefghijklmnop",
        "-m deployments.command up --config /a --home /b " + "x" * 32767,
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> bytes:
    entry = Entry(ROOT / "日本 home", ROOT / "configs" / "demo.yaml", ("train.seed=3",))
    return render(entry, ACCOUNT)


def _tree(task: bytes) -> ET.Element:
    return parse(task.decode("utf-16"))


def _text(root: ET.Element) -> str:
    ET.register_namespace("", NAMESPACE)
    return HEAD + ET.tostring(root, encoding="unicode")


def _paths(element: ET.Element, prefix: str = ""):
    for child in element:
        path = prefix + child.tag.removeprefix(f"{{{NAMESPACE}}}")
        yield path
        yield from _paths(child, path + "/")


def _at(root: ET.Element, path: str) -> ET.Element:
    for name in filter(None, path.split("/")):
        root = root.find(f"{{{NAMESPACE}}}{name}")
    return root


def _generic(task: bytes):
    """Eight changes of every element."""
    for path in _paths(_tree(task)):
        for change in ("delete", "duplicate", "rename", "foreign", "attribute", "empty", "junk", "child"):
            root = _tree(task)
            element, parent = _at(root, path), _at(root, path.rpartition("/")[0])
            if change == "delete":
                parent.remove(element)
            elif change == "duplicate":
                parent.append(copy.deepcopy(element))
            elif change == "rename":
                element.tag += "X"
            elif change == "foreign":
                element.tag = "{urn:other}" + path.rpartition("/")[2]
            elif change == "attribute":
                element.set("unexpected", "1")
            elif change == "empty":
                element.text = ""
                del element[:]
            elif change == "junk":
                element.text = "mutated"
            else:
                ET.SubElement(element, f"{{{NAMESPACE}}}Unexpected")
            yield f"{change} {path}", _text(root)


def _chosen(task: bytes):
    """Bad values, wrong orders, and what asks for an administrator or a password."""
    for path, values in BAD_VALUES.items():
        for value in values:
            root = _tree(task)
            _at(root, path).text = value
            yield f"{path} = {value[:60]!r}", _text(root)
    for trigger in ("LogonTrigger", "TimeTrigger"):
        for first in range(len(_at(_tree(task), f"Triggers/{trigger}")) - 1):
            root = _tree(task)
            place = _at(root, f"Triggers/{trigger}")
            moved = place[first]
            place.remove(moved)
            place.insert(first + 1, moved)
            yield f"{trigger}: {first} after {first + 1}", _text(root)
    added = {
        "Triggers": ["BootTrigger", "RegistrationTrigger", "IdleTrigger", "CalendarTrigger"],
        "Triggers/LogonTrigger": ["EndBoundary", "ExecutionTimeLimit", "Repetition", "Delay"],
        "Triggers/TimeTrigger": ["EndBoundary", "ExecutionTimeLimit", "RandomDelay"],
        "Triggers/TimeTrigger/Repetition": ["Duration"],
        "Principals": ["Password"],
        "Principals/Principal": ["GroupId", "Password", "RequiredPrivileges", "ProcessTokenSidType"],
        "Settings": ["DeleteExpiredTaskAfter", "NetworkProfileName", "NetworkSettings", "MaintenanceSettings"],
        "Actions": ["ComHandler", "SendEmail", "ShowMessage"],
        "": ["Data"],
    }
    for path, names in added.items():
        for name in names:
            root = _tree(task)
            ET.SubElement(_at(root, path), f"{{{NAMESPACE}}}{name}").text = "PT5M"
            yield f"added {path}/{name}", _text(root)
    valid = _text(_tree(task))
    for old, new in (
        ('version="1.2"', 'version="1.4"'), (' version="1.2"', ""), ("2004/02/mit/task", "2004/02/mit/tusk"),
        ('Context="User"', 'Context="Author"'), (' Context="User"', ""), (' id="User"', ""), ('id="User"', 'id=""'),
        ("<Triggers>", "<Triggers><!-- x --><x xmlns=''/>"), ("</Task>", ""), ("<Settings>", "<Settings>text"),
        ("\n<Task", '\n<!DOCTYPE Task [<!ENTITY a "b">]>\n<Task'),
    ):  # fmt: skip
        assert old in valid
        yield f"{old} -> {new}", valid.replace(old, new)


def test_ours_has_no_fault(task):
    assert check_task(task) == []
    assert check_definition(_text(_tree(task))) == []


def test_every_invalid_change_is_refused(task):
    accepted, refused = set(), 0
    for name, text in [*_generic(task), *_chosen(task)]:
        if check_definition(text):
            refused += 1
        else:
            accepted.add(name)
    assert accepted == HARMLESS
    assert refused == 463


def test_the_bytes_are_what_schtasks_reads(task):
    text = task.decode("utf-16")
    assert task.startswith(b"\xff\xfe<\0?\0")
    wrong = {
        "UTF-8": text.encode("utf-8"),
        "UTF-8 with mark": text.encode("utf-8-sig"),
        "no mark": text.encode("utf-16-le"),
        "big-endian": b"\xfe\xff" + text.encode("utf-16-be"),
        "torn": task[:-1],
        "declares UTF-8": b"\xff\xfe" + text.replace("UTF-16", "UTF-8").encode("utf-16-le"),
        "declares nothing": b"\xff\xfe" + text.removeprefix(HEAD).encode("utf-16-le"),
        "empty": b"",
    }
    assert [name for name, data in wrong.items() if not check_task(data)] == []


def test_a_sid_is_accepted_only_for_the_same_user(task):
    root = _tree(task)
    _at(root, "Principals/Principal/UserId").text = "S-1-5-21-1-2-3-1001"
    assert check_definition(_text(root), (ACCOUNT.upper(), "S-1-5-21-1-2-3-1001")) == []
    assert check_definition(_text(root), (ACCOUNT, "S-1-5-21-1-2-3-1002")) != []
    assert check_definition(_text(root)) != []


@given(st.lists(st.text(st.characters(codec="utf-16", exclude_characters="\0\r\n"), max_size=12), max_size=5))
def test_a_command_line_is_split_as_it_was_joined(words):
    assert split_command(subprocess.list2cmdline(words)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # From Microsoft's "Parsing C++ command-line arguments".
        (r'"abc" d e', ["abc", "d", "e"]),
        (r'a\\b d"e f"g h', [r"a\\b", "de fg", "h"]),
        (r'a\\\"b c d', [r'a\"b', "c", "d"]),
        (r'a\\\\"b c" d e', [r"a\\b c", "d", "e"]),
        ('a "" b', ["a", "", "b"]),
        ("a\tb  c", ["a", "b", "c"]),
    ],
)  # fmt: skip
def test_a_command_line_is_split_as_windows_does(text, words):
    assert split_command(text) == words
