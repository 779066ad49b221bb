"""No state file is written but through so8t/durable.py: by reading the code, and by recording a run."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.crash import powercut_strict
from tests.writing import writes

ROOT = Path(__file__).resolve().parent.parent
CODE = [p for d in ("so8t", "flows", "tasks", "deployments") for p in sorted((ROOT / d).rglob("*.py"))]

LOCK = "a lock: an empty file that nobody reads"
LOG = "an append-only log; readers ignore a torn last line"
PART = "a *.part whose durable length is in its state, hashed, fsynced and published by durable.replace"
# (file, function, call) -> why this may write by itself.
ALLOWED = {
    ("so8t/artifacts.py", "Store.working", "FileLock"): LOCK,
    ("so8t/cleanup/removal.py", "holding", "FileLock"): LOCK,
    ("so8t/fence.py", "lock_of", "FileLock"): LOCK,
    ("so8t/recovery/room.py", "_held", "FileLock"): LOCK,
    ("deployments/server.py", "Server.ensure", "FileLock"): LOCK,
    ("deployments/up.py", "main", "FileLock"): LOCK,
    ("so8t/attempt.py", "log_error", "open"): LOG,
    ("so8t/stacks.py", "answer", "open"): "what a process writes on its own way out, for people",
    ("so8t/stacks.py", "ask", "touch"): "an empty file that asks, and is removed as the answer",
    ("so8t/monitor/state.py", "remembered", "FileLock"): LOCK,
    ("so8t/child.py", "run", "open"): LOG,
    ("so8t/fence.py", "enter", "open"): LOG,
    ("so8t/notify.py", "_write", "open"): LOG,
    ("so8t/serve/audit.py", "_Lines._open", "open"): LOG,
    ("so8t/serve/audit.py", "AuditLog.__init__", "FileLock"): LOCK,
    ("so8t/serve/audit.py", "Key.__init__", "FileLock"): LOCK,
    ("so8t/progress.py", "JsonLines.__init__", "open"): LOG,
    ("so8t/loop/trainlog.py", "TrainLog._write", "open"): LOG,
    ("so8t/train/samples.py", "Samples._write", "open"): LOG,
    ("so8t/loop/trackers.py", "TensorBoard.__init__", "SummaryWriter"): "a view of the history, made anew at each start",
    ("deployments/keeper.py", "Output.__init__", "RotatingFileHandler"): LOG,
    ("deployments/server.py", "Server._start", "open"): LOG,
    ("so8t/preflight/host.py", "check_home", "NamedTemporaryFile"): "tries whether the home can be written; gone when closed",
    ("so8t/benchmark/plots.py", "png", "savefig"): "into memory",
    ("so8t/records.py", "write", "write_table"): "into durable.open_for_write's file",
    ("so8t/database.py", "connect", "connect"): "SQLite with synchronous=FULL: its own journal and fsyncs",
    ("so8t/search/study.py", "_connect", "connect"): "SQLite with synchronous=FULL: its own journal and fsyncs",
    ("so8t/study/pictures.py", "_png", "savefig"): "into memory",
    ("so8t/preprocess/plots.py", "draw", "savefig"): "into memory",
    ("so8t/preprocess/shard.py", "_write", "write_table"): "into durable.open_for_write's file",
    ("so8t/bake/gguf_file.py", "new_gguf", "GGUFWriter"): "a *.tmp that durable.fsync_file and durable.replace publish",
    ("so8t/bake/quantize.py", "quantize", "llama_model_quantize"): "a *.tmp that durable.fsync_file and durable.replace publish",
    ("so8t/collect/download.py", "_Part.resume", "open"): PART,
    ("so8t/collect/download.py", "_Part.resume", "truncate"): PART,
    ("so8t/collect/download.py", "_Part.append", "open"): PART,
    ("so8t/records.py", "Stream.__enter__", "ParquetWriter"): "into durable.open_for_write's file",
    ("so8t/records.py", "Stream._flush", "write_table"): "into durable.open_for_write's file",
    ("so8t/collect/shards.py", "Shards.commit", "write_table"): "into durable.open_for_write's file",
    ("so8t/collect/slots.py", "slot", "FileLock"): LOCK,
    ("so8t/collect/media.py", "_wav_of", "open"): "into memory",
    ("so8t/sound.py", "wav", "open"): "into memory",
    ("so8t/collect/archives.py", "opened", "ZipFile"): "reads",
    ("so8t/attempt.py", "begin", "mkdir"): "a folder for logs",
    ("so8t/loop/checkpoint.py", "Checkpoints.save", "mkdir"): "a *.tmp that durable.replace publishes",
    ("so8t/durable.py", "append_line", "open"): LOG,
    ("so8t/durable.py", "make_folder", "mkdir"): "the one place",
    ("so8t/durable.py", "_rename", "replace"): "the one place",
    ("so8t/durable.py", "fsync_file", "open"): "flushes what is there",
    ("so8t/durable.py", "open_for_write", "open"): "the one place",
    ("so8t/durable.py", "write_text", "write_bytes"): "the one place",
    ("so8t/durable.py", "write_json", "write_text"): "the one place",
}  # fmt: skip

# What remains of a run without being durable file by file. Paths relative to the home.
LOOSE_ALLOWED = {
    r"locks/.*\.lock": LOCK,
    r"prefect/.*\.lock": LOCK,
    r"monitor/.*\.lock": LOCK,
    r"logs/.*\.(log|jsonl)": LOG,
    r"logs/.*/log": LOG,
    r"progress_logs/.*\.jsonl": LOG,
    r"sessions/.*/recoveries\.jsonl": LOG,
    r"prefect/.*": "Prefect's own database, results and logs; the disk decides, not Prefect",
}


def test_no_code_writes_a_file_by_itself():
    found = {
        (path.relative_to(ROOT).as_posix(), write.where, write.call): write.line
        for path in CODE
        for write in writes(path.read_text(encoding="utf-8"))
    }
    loose = [
        f"{file}:{line} {where}: {call}"
        for (file, where, call), line in found.items()
        if (file, where, call) not in ALLOWED
    ]
    assert loose == [], "go through so8t/durable.py, or say in ALLOWED why not"
    assert sorted(ALLOWED.keys() - found.keys()) == [], "these write nothing any more"


@pytest.mark.parametrize(
    "line",
    [
        "path.open('w')", "path.open('wb')", "path.open(mode='a')", "open(path, 'x')", "open(path, mode='r+')",
        "open(path, mode=mode)", "path.open('ab' if resumed else 'wb')", "io.open(path, 'w', encoding='utf-8')",
        "os.open(path, os.O_CREAT | os.O_WRONLY)", "os.fdopen(fd, 'w')", "path.write_text(text)", "path.write_bytes(b'')",
        "shutil.copy(a, b)", "shutil.copy2(a, b)", "shutil.copytree(a, b)", "shutil.copyfile(a, b)", "shutil.move(a, b)",
        "os.rename(a, b)", "os.replace(a, b)", "a.rename(b)", "a.replace(b)", "Path(a).replace(b)", "a.touch()",
        "np.save(path, array)", "numpy.savez(path, a=array)", "array.tofile(path)", "np.memmap(path, 'u1', 'w+')",
        "np.memmap(path)", "torch.save(state, path)", "save_file(tensors, path)", "safetensors.torch.save_file(t, path)",
        "model.save_pretrained(out)", "pq.write_table(table, path)", "pq.ParquetWriter(path, schema)",
        "frame.to_parquet(path)", "frame.to_csv(path)", "zipfile.ZipFile(path, 'w')", "tarfile.open(path, 'w:gz')",
        "sqlite3.connect(path)", "json.dump(value, file)", "yaml.safe_dump(value, file)", "image.save(path)",
        "figure.savefig(path)", "folder.mkdir()", "os.makedirs(folder)", "FileLock(path)", "logging.FileHandler(path)", "tempfile.mkstemp()",
    ],
)  # fmt: skip
def test_the_lint_sees(line):
    assert len(writes(f"def f():\n    {line}\n")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "path.open('rb')", "open(path)", "path.open(encoding='utf-8')", "os.open(folder, os.O_RDONLY)", "text.replace('a', 'b')",
        "day.replace(hour=1)", "durable.replace(a, b)", "durable.write_text(path, text)", "json.dumps(value)",
        "yaml.safe_dump(value)", "np.memmap(path, np.uint8, 'r', 0, (1,))", "Image.open(file)", "os.fdopen(fd)",
        "SessionFile.open(home, 'train-ab', 'train')", "lazy.open()", "save(tensors)", "checkpoints.save('rolling', snapshot)",
    ],
)  # fmt: skip
def test_the_lint_leaves_alone(line):
    assert writes(f"def f():\n    {line}\n") == []


def loose_after(tmp_path: Path, commands: list[list[str]]) -> list[str]:
    """Run commands under strace in an empty home; the files that a power cut right afterwards may take or tear."""
    home = tmp_path / "disk" / "home"
    home.parent.mkdir()
    disk, seen = powercut_strict.StrictDisk(home.parent), 0
    for command in commands:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf"), "TMPDIR": str(tmp_path)}
        calls = powercut_strict.record(
            [sys.executable, "-m", *command, "--home", str(home)], tmp_path / "strace.log", ROOT, environment
        )
        seen += len(calls)
        for call in calls:
            disk.apply(call)
    there = {path.relative_to(home.parent).as_posix() for path in home.rglob("*") if path.is_file()}
    recorded = {path for path in disk.files() if path.startswith("home/")}
    assert there == recorded, "the record is not the truth"
    assert len(there) > 5
    assert seen > 100
    return [
        path for path in disk.loose()
        if not any(re.fullmatch(f"home/{pattern}", path) for pattern in LOOSE_ALLOWED)
    ]  # fmt: skip


needs_strace = pytest.mark.skipif(bool(powercut_strict.why_not()), reason=powercut_strict.why_not() or "-")


@needs_strace
def test_a_recorded_step_leaves_nothing_loose(tmp_path):
    assert loose_after(tmp_path, [["so8t", "step", "collect.source", "--part", "tones"]]) == []


@needs_strace
@pytest.mark.soak
def test_a_recorded_run_leaves_nothing_loose(tmp_path):
    run = ["deployments.command", "run", "--json", "--set", "machine.server_port=0", *TINY]
    assert loose_after(tmp_path, [run]) == []


@needs_strace
def test_the_record_finds_a_loose_file(tmp_path):
    """The proof above can fail: a file renamed into place without an fsync, and one whose folder has none."""
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom so8t import durable\n"
        "disk = Path(sys.argv[1])\ndurable.write_bytes(disk / 'a' / 'whole', b'1')\n"
        "(disk / 'a' / 'b.tmp').write_bytes(b'1')\ndurable.replace(disk / 'a' / 'b.tmp', disk / 'a' / 'b')\n"
        "(disk / 'c').write_bytes(b'1')\ndurable.fsync_file(disk / 'c')\n"
    )
    root = tmp_path / "disk"
    root.mkdir()
    calls = powercut_strict.record([sys.executable, "-c", code, str(root)], tmp_path / "log", ROOT, dict(os.environ))
    disk = powercut_strict.StrictDisk(root)
    for call in calls:
        disk.apply(call)
    assert disk.files() == ["a/b", "a/whole", "c"]
    assert disk.loose() == ["a/b", "c"]
