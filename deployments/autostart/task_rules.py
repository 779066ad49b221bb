"""Our own rules for a Task Scheduler definition. No schema catches the traps: what is absent has a default that hurts.

Types, limits and the order inside a trigger are those of the protocol (MS-TSCH, section 2.5); the wanted values are
ours. HighestAvailable, a trigger for every user and a start at boot need an administrator; the default time limit ends
a task after 72 hours; the default battery settings end it on a UPS.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath, PureWindowsPath

from deployments.autostart.entry import UNWRITABLE, read_command, secret_in

NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
VERSION = "1.2"
PATH_CHARS_MAX = 260
COMMAND_LINE_CHARS_MAX = 32767
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
TRIGGER_ORDER = (
    "Enabled", "StartBoundary", "EndBoundary", "Repetition", "ExecutionTimeLimit", "UserId", "RandomDelay", "Delay",
)  # fmt: skip
SERVICE_ACCOUNTS = re.compile(
    r"(NT AUTHORITY\\|NT-AUTORITÄT\\|\.\\)?(SYSTEM|LOCAL ?SERVICE|NETWORK ?SERVICE|LOCALSYSTEM)|S-1-5-(18|19|20)", re.I
)
DURATION = re.compile(r"P(?=.)(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
# Task Scheduler replaces both in an action before it starts anything.
EXPANDED = re.compile(r"%[^%]+%|\$\(")


@dataclass(frozen=True)
class Leaf:
    """A value: what it must be and, where it may be absent, what Task Scheduler then takes."""

    good: Callable[[str], bool]
    wanted: str
    default: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Group:
    """Elements with elements inside; each at most once."""

    inside: Mapping[str, "Leaf | Group"]
    attributes: frozenset[str] = frozenset()
    ordered: bool = False
    optional: bool = False


def seconds_of(text: str) -> int | None:
    """Seconds of an XML duration without years and months; None where it is none."""
    found = DURATION.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * DAY_S + hours * HOUR_S + minutes * MINUTE_S + seconds


def _between(low_s: int, high_s: int) -> Callable[[str], bool]:
    def good(text: str) -> bool:
        seconds = seconds_of(text)
        return seconds is not None and low_s <= seconds <= high_s

    return good


def _whole(low: int, high: int) -> Callable[[str], bool]:
    return lambda text: text.isascii() and text.isdigit() and low <= int(text) <= high


def _past(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text):
        return False
    try:
        return datetime.fromisoformat(text) <= datetime.now()
    except ValueError:
        return False


def _path(text: str) -> bool:
    absolute = PureWindowsPath(text).is_absolute() or PurePosixPath(text).is_absolute()
    return 1 <= len(text) <= PATH_CHARS_MAX and absolute and '"' not in text and not EXPANDED.search(text)


def _account(text: str) -> bool:
    return bool(text.strip()) and not SERVICE_ACCOUNTS.fullmatch(text.strip())


def _arguments(text: str) -> bool:
    started = read_command(split_command(text))
    homes = [PureWindowsPath(started.home).is_absolute(), PurePosixPath(started.home).is_absolute()]
    configs = [PureWindowsPath(started.config).is_absolute(), PurePosixPath(started.config).is_absolute()]
    return any(homes) and any(configs) and not EXPANDED.search(text) and not secret_in(text)


def _yes(default: str) -> Leaf:
    return Leaf(lambda text: text in {"true", "1"}, "true", default)


def _no(default: str) -> Leaf:
    return Leaf(lambda text: text in {"false", "0"}, "false", default)


def _either(default: str) -> Leaf:
    return Leaf(lambda text: text in {"true", "false", "0", "1"}, "true or false", default)


TEXT = Leaf(lambda text: bool(text) and not UNWRITABLE.search(text) and not secret_in(text), "a text", optional=True)
DURATION_ANY = Leaf(lambda text: seconds_of(text) is not None, "a duration", optional=True)
PATH = Leaf(_path, f"an absolute path of 1 to {PATH_CHARS_MAX} characters, without quotes, %NAME% and $(")
ACCOUNT = Leaf(_account, "the user who installs, and no service account")
RETRY_INTERVAL = Leaf(_between(MINUTE_S, 31 * DAY_S), "PT1M to P31D")

REGISTRATION = Group(dict.fromkeys(("URI", "Author", "Description", "Date", "Source", "Version"), TEXT), optional=True)
LOGON = Group({"Enabled": _yes("true"), "UserId": ACCOUNT}, frozenset({"id"}), ordered=True)
WATCHDOG = Group(
    {
        "Enabled": _yes("true"),
        "StartBoundary": Leaf(_past, "a local time of the past, as 2000-01-01T00:00:00"),
        "Repetition": Group({
            "Interval": Leaf(_between(MINUTE_S, HOUR_S), "PT1M to PT1H"),
            "StopAtDurationEnd": _no("false"),
        }),
    },
    frozenset({"id"}),
    ordered=True,
)  # fmt: skip
PRINCIPAL = Group(
    {
        "UserId": ACCOUNT,
        "LogonType": Leaf(lambda text: text == "InteractiveToken", "InteractiveToken: no stored password"),
        "RunLevel": Leaf(lambda text: text == "LeastPrivilege", "LeastPrivilege", "LeastPrivilege"),
    },
    frozenset({"id"}),
)
SETTINGS = Group({
    "MultipleInstancesPolicy": Leaf(lambda text: text == "IgnoreNew", "IgnoreNew", "IgnoreNew"),
    "DisallowStartIfOnBatteries": _no("true"),
    "StopIfGoingOnBatteries": _no("true"),
    "AllowHardTerminate": _either("true"),
    "StartWhenAvailable": _yes("false"),
    "RunOnlyIfNetworkAvailable": _either("false"),
    "IdleSettings": Group({
        "StopOnIdleEnd": _no("true"), "RestartOnIdle": _either("false"), "Duration": DURATION_ANY, "WaitTimeout": DURATION_ANY,
    }),
    "AllowStartOnDemand": _yes("true"),
    "Enabled": _yes("true"),
    "Hidden": _no("false"),
    "RunOnlyIfIdle": _no("false"),
    "DisallowStartOnRemoteAppSession": _no("false"),
    "UseUnifiedSchedulingEngine": _either("false"),
    "WakeToRun": _no("false"),
    "ExecutionTimeLimit": Leaf(_between(0, 0), "PT0S", "PT72H"),
    # 7 and above mean low disk priority, and a checkpoint must not wait behind a virus scan.
    "Priority": Leaf(_whole(4, 6), "4 to 6", "7"),
    "RestartOnFailure": Group({"Interval": RETRY_INTERVAL, "Count": Leaf(_whole(1, 255), "1 to 255")}),
})  # fmt: skip
EXEC = Group(
    {
        "Command": PATH,
        "Arguments": Leaf(_arguments, "`so8t up` with an absolute --config and --home, without %NAME%, $( and secrets"),
        "WorkingDirectory": PATH,
    },
    frozenset({"id"}),
)
TASK = Group(
    {
        "RegistrationInfo": REGISTRATION,
        "Triggers": Group({"LogonTrigger": LOGON, "TimeTrigger": WATCHDOG}),
        "Principals": Group({"Principal": PRINCIPAL}),
        "Settings": SETTINGS,
        "Actions": Group({"Exec": EXEC}, frozenset({"Context"})),
    },
    frozenset({"version"}),
)


def split_command(text: str) -> list[str]:
    """Split a Windows command line by the rules of the C runtime: the inverse of subprocess.list2cmdline."""
    words: list[str] = []
    word, quoted, begun = "", False, False
    for slashes, char in re.findall(r"(\\*)(.?)", text, re.S):
        if char == '"':
            word += slashes[: len(slashes) // 2]
            if len(slashes) % 2:
                word += char
            else:
                quoted = not quoted
            begun = True
        elif char in {" ", "\t", ""} and not quoted:
            word, begun = word + slashes, begun or bool(slashes)
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + slashes + char, True
    return words


def check_task(data: bytes, aliases: Collection[str] = ()) -> list[str]:
    """Faults of a file for `schtasks /create /xml`; `aliases` are further names of the user, such as the SID."""
    if not data.startswith(b"\xff\xfe"):
        return ["the file does not begin with the UTF-16 byte order mark FF FE"]
    try:
        text = data.decode("utf-16")
    except UnicodeDecodeError as error:
        return [f"the file is not UTF-16: {error.reason}"]
    if not re.match(r'<\?xml version="1\.0" encoding="UTF-16"\?>', text):
        return ['the file does not begin with <?xml version="1.0" encoding="UTF-16"?>']
    return check_definition(text, aliases)


def parse(text: str) -> ET.Element:
    """The root element; ValueError where the text is no XML or declares entities."""
    if "<!" in re.sub(r"<!--.*?-->", "", text, flags=re.S):
        raise ValueError("the definition declares a document type or holds CDATA")
    try:
        return ET.fromstring(text)  # noqa: S314 (entities cannot be declared without <!)
    except ET.ParseError as error:
        raise ValueError(f"the definition is not XML: {error}") from None


def check_definition(text: str, aliases: Collection[str] = ()) -> list[str]:
    """Faults of a definition, as written or as Task Scheduler gives it back."""
    try:
        root = parse(text)
    except ValueError as error:
        return [str(error)]
    if root.tag != f"{{{NAMESPACE}}}Task":
        return [f"the root is {root.tag}; wanted Task of {NAMESPACE}"]
    faults = list(_check_group(root, TASK, "Task"))
    if root.get("version") != VERSION:
        faults.append(f"Task: version {root.get('version')!r}; wanted {VERSION!r}")
    return faults or list(_check_together(root, aliases))


def _check_group(element: ET.Element, group: Group, where: str) -> Iterator[str]:
    for name in sorted(set(element.attrib) - group.attributes):
        yield f"{where}: unexpected attribute {name}"
    if (element.text or "").strip() or any((child.tail or "").strip() for child in element):
        yield f"{where}: text between its elements"
    names = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in element]
    for name in sorted(set(names)):
        if name not in group.inside:
            yield f"{where}: unexpected {name}"
        elif names.count(name) > 1:
            yield f"{where}: {name} stands {names.count(name)} times"
    positions = [TRIGGER_ORDER.index(name) for name in names if name in TRIGGER_ORDER]
    if group.ordered and positions != sorted(positions):
        yield f"{where}: the order must be {', '.join(TRIGGER_ORDER)}"
    for name, rule in group.inside.items():
        child = element.find(f"{{{NAMESPACE}}}{name}")
        if isinstance(rule, Leaf):
            yield from _check_leaf(child, rule, f"{where}/{name}")
        elif child is not None:
            yield from _check_group(child, rule, f"{where}/{name}")
        elif not rule.optional:
            yield f"{where}/{name} is absent"


def _check_leaf(element: ET.Element | None, leaf: Leaf, where: str) -> Iterator[str]:
    if element is None:
        if leaf.default is None and not leaf.optional:
            yield f"{where} is absent; wanted {leaf.wanted}"
        elif leaf.default is not None and not leaf.good(leaf.default):
            yield f"{where} is absent and counts as {leaf.default}; wanted {leaf.wanted}"
    elif element.attrib or len(element):
        yield f"{where}: attributes or elements inside a value"
    elif not leaf.good(element.text or ""):
        shown = "(not shown)" if secret_in(element.text or "") else repr(element.text or "")
        yield f"{where}: {shown}; wanted {leaf.wanted}"


def _check_together(root: ET.Element, aliases: Collection[str]) -> Iterator[str]:
    """What two elements must agree on; everything is there by now."""
    values = values_of(root)
    logon, principal = values["Triggers/LogonTrigger/UserId"], values["Principals/Principal/UserId"]
    if not same_account(logon, principal, aliases):
        yield f"the logon trigger is for {logon}, the principal is {principal}; wanted the same user"
    context, identity = (
        root.find(f"{{{NAMESPACE}}}{path}") for path in ("Actions", f"Principals/{{{NAMESPACE}}}Principal")
    )
    if (
        context is None
        or identity is None
        or not context.get("Context")
        or context.get("Context") != identity.get("id")
    ):
        yield "Actions: Context must name the Principal's id"
    length = len(values["Actions/Exec/Command"]) + len(values["Actions/Exec/Arguments"]) + 3
    if length > COMMAND_LINE_CHARS_MAX:
        yield f"the command line has {length} characters; wanted at most {COMMAND_LINE_CHARS_MAX}"


def same_account(one: str, other: str, aliases: Collection[str]) -> bool:
    """Whether two names are one account's; Task Scheduler may give a name back as a SID."""
    names = {alias.casefold() for alias in aliases}
    return one.casefold() == other.casefold() or {one.casefold(), other.casefold()} <= names


def values_of(element: ET.Element, group: Group = TASK, prefix: str = "") -> dict[str, str]:
    """Every value by its path below Task, with Task Scheduler's default where it has one and is absent."""
    values: dict[str, str] = {}
    for name, rule in group.inside.items():
        child = element.find(f"{{{NAMESPACE}}}{name}")
        if isinstance(rule, Group):
            values |= values_of(ET.Element("absent") if child is None else child, rule, f"{prefix}{name}/")
        elif child is not None:
            values[prefix + name] = child.text or ""
        elif rule.default is not None:
            values[prefix + name] = rule.default
    return values
