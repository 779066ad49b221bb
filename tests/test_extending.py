"""docs/extending.md does what it says: its blocks are written into a copy of the project and run there."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from so8t import records

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"^`((?:so8t|flows)/[\w/.]+)`$")


def _blocks(text: str) -> list[tuple[str, list[str]]]:
    """Each named file with its indented block."""
    found, name = [], ""
    for indented, lines in groupby(text.splitlines(), lambda line: line.startswith("    ") or not line):
        block = [line.removeprefix("    ") for line in lines]
        if indented and name and any(block):
            found.append((name, "\n".join(block).strip("\n").splitlines()))
        elif not indented:
            match = NAME.match(block[-1])
            name = match[1] if match else ""
    return found


def _edit(text: str, lines: list[str]) -> str:
    """Each change: a line that occurs once (@), what goes (-), what comes (+)."""
    changes = re.split(r"^@ ", "\n".join(lines), flags=re.MULTILINE)[1:]
    for change in changes:
        anchor, *rest = change.rstrip("\n").splitlines()
        gone = [line[2:] for line in rest if line.startswith("-")] or [anchor]
        came = [line[2:] for line in rest if line.startswith("+")]
        kept = [] if any(line.startswith("-") for line in rest) else [anchor]
        before, after = "\n".join(gone) + "\n", "\n".join([*kept, *came]) + "\n"
        assert text.count(before) == 1, f"{text.count(before)} times: {before}"
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("extended")
    for folder in ("so8t", "configs"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = _blocks((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"))
    assert len(blocks) == 8
    for name, lines in blocks:
        path = place / name
        changed = lines[0].startswith("@")
        text = _edit(path.read_text(encoding="utf-8"), lines) if changed else "\n".join(lines) + "\n"
        path.write_text(text, encoding="utf-8", newline="\n")
    (place / "faq.txt").write_text("Q: What is a rotor?\nA: A rotation.\nQ: And a stator?\n", encoding="utf-8")
    rows = [{"question": f"Capital of {n}?", "choices": ["a", "b"], "right": n % 2} for n in range(3)]
    (place / "capitals.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (place / "own.yaml").write_text(
        "base: {kind: demo}\ncollect:\n  sources:\n"
        "    - {kind: faq, name: faq, paths: [faq.txt], language: en, licence: mit}\n"
        "benchmark:\n  tasks: [safety, capitals]\n  data:\n"
        "    capitals: {kind: files, paths: [capitals.jsonl], licence: mit, origin: our own}\n",
        encoding="utf-8",
    )
    return place


def _so8t(place: Path, *arguments: str) -> str:
    """A command of the copy; PYTHONPATH goes before the installed package."""
    done = subprocess.run(
        [sys.executable, "-m", "so8t", *arguments],
        cwd=place, env=os.environ | {"PYTHONPATH": str(place), "SO8T_HOME": str(place / "home")},
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _artifact(place: Path, step: str) -> Path:
    (found,) = (place / "home" / "artifacts" / step).glob("*/manifest.json")
    return found.parent


def test_a_source(extended):
    _so8t(extended, "step", "collect.source", "--part", "faq", "--config", "own.yaml")
    folder = _artifact(extended, "collect.source")
    (row,) = records.iterate(folder / "records.parquet")
    assert (row.prompt, row.response, row.licence, row.row) == ("What is a rotor?", "A rotation.", "mit", 0)
    assert json.loads((folder / "sources.json").read_text(encoding="utf-8"))["quarantined"] == {"no answer": 1}
    assert "Licence that you declare" in _so8t(extended, "config", "explain", "collect.sources.licence")


def test_a_step(extended):
    _so8t(extended, "step", "collect.source", "--part", "faq", "--config", "own.yaml")
    _so8t(extended, "step", "collect.lengths", "--part", "faq", "--config", "own.yaml")
    lengths = (_artifact(extended, "collect.lengths") / "lengths.json").read_text(encoding="utf-8")
    assert json.loads(lengths) == {"10": 1}


def test_a_task(extended):
    _so8t(extended, "step", "collect.questions", "--part", "capitals", "--config", "own.yaml")
    code = (
        "import sys\nfrom pathlib import Path\nfrom so8t.benchmark.items import View, read_rows\n"
        "from so8t.benchmark.task import load_task\nview = View(load_task('capitals'))\n"
        "for pair in read_rows(Path(sys.argv[1])):\n"
        "    print([view.prompt(*pair), view.value('choices', *pair), view.value('right', *pair)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(_artifact(extended, "collect.questions"))],
        cwd=extended, env=os.environ | {"PYTHONPATH": str(extended)}, capture_output=True, text=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert "['Question: Capital of 1?\\nAnswer:', ['a', 'b'], 1]" in done.stdout, done.stderr + done.stdout
