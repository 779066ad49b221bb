"""What others remove while it is looked at counts nothing, and is no error."""

import os
import shutil
from pathlib import Path

import pytest

from so8t import progress, sizes
from so8t.overview import live


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")


def test_sizes_of_files_folders_and_nothing(tmp_path):
    fill(tmp_path / "a", "one", "b/two", "b/c/three")
    assert sizes.size_of(tmp_path / "a") == 15
    assert sizes.size_of(tmp_path / "a" / "one") == 5
    assert sizes.size_of(tmp_path / "gone") == 0


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_are_not_followed(tmp_path):
    fill(tmp_path / "elsewhere", "large")
    fill(tmp_path / "a", "one")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    assert sizes.size_of(tmp_path / "a") == 5


@pytest.mark.parametrize("goes", ["b", "b/two"])
def test_what_goes_meanwhile_counts_nothing(tmp_path, monkeypatch, goes):
    """Between the listing of the folder above and the look at it, by whoever calls first."""
    fill(tmp_path / "a", "one", "b/two", "b/c/three")
    walk = os.walk

    def removing(top, **more):
        for at, folders, names in walk(top, **more):
            yield at, folders, names
            if (at == str(tmp_path / "a") and goes == "b") or (at == str(tmp_path / "a" / "b") and goes == "b/two"):
                shutil.rmtree(tmp_path / "a" / "b", ignore_errors=True)

    def early(top, **more):
        for found in walk(top, **more):
            if found[0] == str(tmp_path / "a" / "b"):
                (tmp_path / "a" / "b" / "two").unlink()
            yield found

    monkeypatch.setattr(os, "walk", removing if goes == "b" else early)
    assert sizes.size_of(tmp_path / "a") == (5 if goes == "b" else 10)


def test_logs_that_are_rotated_away_meanwhile_end_no_look(tmp_path, monkeypatch):
    line = '{"time": 1.0, "step": "train", "done": 1, "total": 2, "message": "", "loss": 3.0}\n'
    for number in (1, 2):
        fill(tmp_path / "logs" / f"attempt_{number}", f"s{number}.progress.jsonl")
        path = tmp_path / "logs" / f"attempt_{number}" / f"s{number}.progress.jsonl"
        path.write_text(line.replace("train", f"s{number}"), encoding="utf-8")
    first = live.first_of

    def removing(path):
        """Listed, and gone before it is read."""
        if path.name.startswith("s1"):
            shutil.rmtree(path.parent)
        return first(path)

    monkeypatch.setattr(live, "first_of", removing)
    assert set(live.live(tmp_path)) == {"s2"}
    assert progress.lines_of(tmp_path / "gone") == []
