"""Rows stay at home, above all those that were removed: their texts are others', and some were personal."""

import pytest

from so8t.artifacts import Artifact, FileEntry, Manifest
from so8t.errors import StepFailed
from so8t.preprocess.run import FILES
from so8t.upload.repository import Entry, check_entries, gather


@pytest.mark.parametrize("role", ["data", "collected", "benchmark"])
def test_no_file_of_rows_is_gathered(tmp_path, role):
    names = [*(f"{name}.parquet" for name in FILES), "records.parquet", "active.csv", "active.md"]
    files = [FileEntry(path=name, size_bytes=1, sha256="0" * 64) for name in names]
    whole = Artifact(tmp_path, Manifest.model_construct(files=files))
    entries = gather({role: whole})
    if role != "benchmark":
        assert entries == []
        return
    # Its whole folder is published; a file of rows that strays into it stops the publication.
    with pytest.raises(StepFailed, match=r"removed\.parquet: files of this type are not published"):
        check_entries(entries)


def test_a_file_of_rows_is_refused_wherever_it_came_from(tmp_path):
    path = tmp_path / "removed.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(StepFailed, match="not published"):
        check_entries([Entry("rows/removed.parquet", path, 4, "0" * 64)])
