"""Which files of somebody else's repository are taken, and copying them from a folder."""

import re
from pathlib import Path
from typing import Any

import yaml

from so8t import durable
from so8t.artifacts import HASH_CHUNK_BYTES, hash_file
from so8t.collect.config import LocalBase
from so8t.collect.licence import normal_form
from so8t.errors import InputError
from so8t.models import check_base
from so8t.progress import Progress

# Everything that is data. Code, pickles and other formats stay where they are.
SAFE_SUFFIXES = frozenset({".json", ".safetensors", ".model", ".jinja", ".txt", ".md"})
SAFE_NAMES = frozenset({"LICENSE", "NOTICE"})


def is_wanted(name: str) -> bool:
    """Whether a repository file is data of the model itself; folders inside a repository hold other formats."""
    return "/" not in name and (Path(name).suffix in SAFE_SUFFIXES or name in SAFE_NAMES)


def copy(config: LocalBase, out: Path, progress: Progress) -> dict[str, Any]:
    """Check the folder, then copy its data files; a file that already lies in `out` with the same bytes stays."""
    if not config.path.is_dir():
        raise InputError(
            f"no folder {config.path}", "a folder laid out like a Hub repository of a Phi-3 model", "mend base.path"
        )
    check_base(config.path)
    sources = sorted(path for path in config.path.iterdir() if path.is_file() and is_wanted(path.name))
    total = sum(path.stat().st_size for path in sources)
    done = 0
    for source in sources:
        target = out / source.name
        if not (target.is_file() and hash_file(target) == hash_file(source)):
            with durable.open_for_write(target) as file, source.open("rb") as reading:
                while chunk := reading.read(HASH_CHUNK_BYTES):
                    file.write(chunk)
                    progress.update(done + file.tell(), total, f"copying {source.name}")
        done += source.stat().st_size
    return {"kind": "local", "licence": card_licence(out), "files": len(sources), "bytes": total}


def card_licence(folder: Path) -> str | None:
    """The licence that the card's front matter declares, in normal form; None without one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    match = re.match(r"---\r?\n(.*?)\r?\n---", card.read_text(encoding="utf-8-sig"), re.DOTALL)
    try:
        matter = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return None
    return normal_form(matter.get("license")) or None if isinstance(matter, dict) else None
