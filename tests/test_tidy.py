"""Style as a test: sizes, names, encodings, config keys, documented commands. (Writes: tests/test_writes.py.)"""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from deployments.command import COMMANDS
from so8t.config import Config, _models

ROOT = Path(__file__).resolve().parent.parent
CODE = [p for d in ("so8t", "flows", "tasks", "deployments") for p in sorted((ROOT / d).rglob("*.py"))]
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 450
BANNED_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py", "base.py"}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_files_and_functions_stay_small():
    too_long = []
    for path in CODE:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES_MAX:
            too_long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    too_long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert not too_long, "\n".join(too_long)


def test_no_junk_drawers():
    assert [str(p) for p in CODE if p.name in BANNED_NAMES or p.stem.endswith(("_v2", "_new", "_old"))] == []


def test_nothing_in_flows_hides_a_package():
    names = {p.stem for p in (ROOT / "flows").glob("*.py")} - {"__init__"}
    installed = {"prefect", "torch", "transformers", "datasets", "numpy", "resume", "monitor"} - {"resume", "monitor"}
    assert not names & (installed | set(sys.stdlib_module_names))


def test_scripts_are_ascii():
    for path in [ROOT / ".ci" / "run", *ROOT.glob("*.ps1"), *ROOT.glob("*.bat")]:
        path.read_bytes().decode("ascii")


def _keys(model: type[BaseModel]):
    for name, field in model.model_fields.items():
        yield model, name
        for inner in _models(field.annotation):
            yield from _keys(inner)


def test_every_config_key_is_read():
    """A key that nothing reads passes for a feature."""
    read = {
        node.attr
        for path in CODE
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    unread = sorted(
        {f"{model.__name__}.{name}" for model, name in _keys(Config) if name not in read and name != "kind"}
    )
    assert unread == []


def test_every_config_key_is_documented():
    silent = sorted(
        f"{model.__name__}.{name}"
        for model, name in _keys(Config)
        if not model.model_fields[name].description and not _models(model.model_fields[name].annotation)
        and name not in {"kind", "name", "seed"}
    )  # fmt: skip
    assert silent == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_load(path):
    from so8t.config import load_config

    load_config(path)


def test_every_command_is_documented():
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs" / "operations.md").read_text(
        encoding="utf-8"
    )
    assert [c.name for c in COMMANDS if f"so8t {c.name}" not in text] == []


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["configuration", "commands"])
def test_the_references_are_what_the_code_says(reference, name):
    written = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert written == getattr(reference, name)(), "run: python docs/reference.py"


def test_no_key_and_no_option_is_silent(reference):
    """Each row's last cell says something."""
    for text in (reference.configuration(), reference.commands()):
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        assert len(rows) > 50
        assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_both_readmes_give_the_same_commands():
    """The rows of the command table, and each indented command line."""

    def commands(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        rows = re.findall(r"^\| (`so8t .*`(?:[、,] ?`.*?`)*) \|", text, re.MULTILINE)
        return [*(re.sub("、", ", ", row) for row in rows), *re.findall(r"^ {4}(pip .+)$", text, re.MULTILINE)]

    assert len(commands("README.md")) > 10
    assert commands("README.ja.md") == commands("README.md")


def test_prefect_yaml_names_the_flows():
    described = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    assert [d["entrypoint"] for d in described["deployments"]] == [
        "flows.pipeline.so8t_pipeline",
        "flows.four_class.so8t_four_class",
        "flows.resume.so8t_resume",
    ]


def test_help_is_light():
    """`so8t --help` must load neither torch nor Prefect nor pydantic."""
    code = (
        "import sys\nfrom deployments.command import main\nsys.argv = ['so8t', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'prefect', 'pydantic', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True, cwd=ROOT
    )
    assert done.stdout.strip().endswith("[]")
