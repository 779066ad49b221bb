"""Files from this machine: pictures, sounds, archives, and what is refused with which reason."""

import contextlib
import io
import json
import os
import pickle
import struct
import tarfile
import wave
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from so8t import durable, records
from so8t.artifacts import Store
from so8t.collect import media, shards, source
from so8t.collect.archives import leaves_its_folder
from so8t.collect.config import FilesSource
from so8t.config import Machine, check
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.session import SessionFile
from so8t.step import Ref, execute

RATE_HZ = 8000


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, format="PNG")
    return buffer.getvalue()


def samples() -> np.ndarray:
    return (8000 * np.sin(np.arange(RATE_HZ // 10) / 3)).astype("<i2")


def wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples().tobytes())
    return buffer.getvalue()


def run(out, *paths, **changes):
    config = FilesSource(**{"kind": "files", "name": "mine", "paths": paths, "licence": "mit", **changes})
    out.mkdir(exist_ok=True)
    facts = source.run(config, {}, out, Progress("collect.source", Machine(), out.parent / "home"))
    reasons = pq.read_table(out / "quarantine.parquet")["reason"].to_pylist()
    return facts, records.read(out / "records.parquet"), reasons


def listed(folder, *names):
    rows = [{"prompt": f"What is {name}?", "language": "en", "media": name} for name in names]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
    return path


def test_pictures_and_sounds_beside_their_rows(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.png").write_bytes(png())
    (tmp_path / "b.wav").write_bytes(wav())
    facts, kept, reasons = run(tmp_path / "out", listed(tmp_path, "media/a.png", "b.wav", "gone.png"))
    assert reasons == ["its media is not there"]
    assert [(row.modality, row.media_type, row.media) for row in kept] == [
        ("image", "image/png", png()), ("audio", "audio/wav", wav()),
    ]  # fmt: skip
    assert len(facts["revision"]) == 40


@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_flac_and_ogg_become_wav(kind, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.bin"
    soundfile.write(path, samples(), RATE_HZ, format=kind)
    path.rename(tmp_path / "a.sound")
    _, kept, reasons = run(tmp_path / "out", listed(tmp_path, "a.sound"))
    assert reasons == []
    with wave.open(io.BytesIO(kept[0].media)) as file:
        assert file.getframerate() == RATE_HZ
        back = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    difference = np.abs(back - samples()).max()
    assert difference == 0 if kind == "FLAC" else difference < 2000
    cut = (tmp_path / "a.sound").read_bytes()[:20]
    with pytest.raises(media.NotMedia, match="broken or truncated"):
        media.recognise(cut)


BAD_MEDIA = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git-LFS pointer"),
    "empty": (b"", "empty"),
    "page": (b"<!DOCTYPE html><html></html>", "HTML"),
    "pickle": (pickle.dumps([1]), "pickle"),
    "cut picture": (png()[:46], "broken or truncated picture"),
    "cut sound": (wav()[:200], "truncated WAV"),
    "float sound": (wav()[:20] + struct.pack("<H", 3) + wav()[22:], "not PCM"),
    "text": (b"hello", "neither a picture nor a sound"),
}


@pytest.mark.parametrize("name", BAD_MEDIA)
def test_bad_media_costs_its_row_and_says_why(name, tmp_path):
    data, said = BAD_MEDIA[name]
    (tmp_path / "bad.png").write_bytes(data)
    (tmp_path / "good.png").write_bytes(png())
    _, kept, reasons = run(tmp_path / "out", listed(tmp_path, "bad.png", "good.png"))
    assert len(kept) == 1
    assert len(reasons) == 1
    assert said in reasons[0]


def test_a_huge_picture_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(media, "PIXELS_MAX", 60)
    with pytest.raises(media.NotMedia, match="60 pixels"):
        media.recognise(png())


NAMES_OUT = [
    "../a.png",
    "/etc/passwd",
    "a/../../b",
    "..\\a.png",
    "C:\\a.png",
    "\\\\host\\share",
    "C:a.png",
    "",
    "a\x00b",
]


@pytest.mark.parametrize("name", NAMES_OUT)
def test_a_name_that_leaves_its_folder_is_seen_on_any_system(name):
    assert leaves_its_folder(name)
    assert not leaves_its_folder("a/b..c/.hidden/日本.png")


def test_no_row_reads_outside_its_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    inside = tmp_path / "inside"
    inside.mkdir()
    link, names = inside / "link.png", ["../secret.png", str(tmp_path / "secret.png")]
    # Windows asks for a right to make one, Wine's stub says yes and makes none.
    with contextlib.suppress(OSError if os.name == "nt" else ()):
        link.symlink_to(tmp_path / "secret.png")
    if link.is_symlink() or os.name != "nt":
        names.append(link.name)
    facts, kept, reasons = run(
        tmp_path / "out", listed(inside, *names), listed(tmp_path, "secret.png").rename(tmp_path / "ok.jsonl")
    )
    assert reasons == ["the media's name points out of its folder"] * len(names)
    assert len(kept) == 1
    assert facts["rows"] == 1


def packed(path, members):
    """An archive; a member's value is its bytes, or the target of a link."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members.items():
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                if isinstance(data, str):
                    entry.external_attr = 0o120777 << 16
                file.writestr(entry, data)
    else:
        with tarfile.open(path, "w:gz") as file:
            for name, data in members.items():
                entry = tarfile.TarInfo(name)
                if isinstance(data, str):
                    entry.type, entry.linkname = tarfile.SYMTYPE, data
                    file.addfile(entry)
                else:
                    entry.size = len(data)
                    file.addfile(entry, io.BytesIO(data))
    return path


GOOD = {
    "set/rows.jsonl": b'{"prompt": "What?", "language": "en", "media": "m/a.png"}\n{"prompt": "x", "language": "en"}\n',
    "set/m/a.png": png(),
    "more.csv": "prompt,language,nsfw\n何ですか,ja,true\n".encode(),
}


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_an_archive_is_read_without_being_unpacked(name, tmp_path):
    facts, kept, reasons = run(tmp_path / "out", packed(tmp_path / name, GOOD))
    assert (reasons, facts["rows"]) == ([], 3)
    assert [(row.file, row.row, row.modality, row.nsfw) for row in kept] == [
        (f"{name}/more.csv", 0, "text", True), (f"{name}/set/rows.jsonl", 0, "image", False),
        (f"{name}/set/rows.jsonl", 1, "text", False),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "quarantine.parquet", "records.parquet", "sources.json",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["bad.zip", "bad.tar.gz"])
@pytest.mark.parametrize(
    ("member", "data", "said"),
    [
        ("../../evil.jsonl", b"{}", "points out of"),
        ("/evil.jsonl", b"{}", "points out of"),
        ("..\\evil.jsonl", b"{}", "points out of"),
        ("link.jsonl", "/etc/passwd", "link or a device"),
        ("bomb.jsonl", bytes(20_000_000), "times"),
    ],
)
def test_of_a_dangerous_archive_nothing_is_read(name, member, data, said, tmp_path):
    path = packed(tmp_path / name, {**GOOD, member: data})
    if member == "bomb.jsonl" and name.endswith(".gz"):
        pytest.skip("gzip packs to a thousandth at most")
    with pytest.raises(InputError, match=said):
        run(tmp_path / "out", path)
    assert not (tmp_path / "out" / "records.parquet").exists()
    assert list(tmp_path.rglob("evil*")) == []


@pytest.mark.parametrize("name", ["cut.zip", "cut.tar.gz"])
def test_a_truncated_or_empty_archive(name, tmp_path):
    path = packed(tmp_path / name, GOOD)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"no whole archive|broken"):
        run(tmp_path / "out", path)
    with pytest.raises(InputError, match="holds no rows"):
        run(tmp_path / "out", packed(tmp_path / f"none-{name}", {"a.png": png()}))


BAD_FILES = {
    "latin.csv": ("prompt,language\ncafé,en\n".encode("latin-1"), "not UTF-8"),
    "utf16.jsonl": ('{"prompt": "x"}'.encode("utf-16"), "binary|not UTF-8"),
    "ragged.csv": (b"prompt,language\nx,en,more\n", "do not fit the header"),
    "cut.json": (b'[{"prompt": "x", "language": "en"}, {"prom', "cut short"),
    "scalar.json": (b"[1]", "holds int"),
    "cut.jsonl.gz": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xab", "gzip"),
    "page.csv": (b"<html></html>", "HTML"),
    "image.png": (png(), "media alone"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_something_else(name, tmp_path):
    data, said = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said):
        run(tmp_path / "out", tmp_path / name)


def test_json_csv_and_gzip_give_the_same_rows(tmp_path):
    import gzip

    rows = [{"prompt": f'日本語 {n}, "x"\n', "language": "ja"} for n in range(30)]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "b.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "b.json").read_bytes()))
    text = "prompt,language\n" + "".join(f'"日本語 {n}, ""x""\n",ja\n' for n in range(30))
    (tmp_path / "d.csv").write_text(text, encoding="utf-8-sig", newline="")
    _, kept, reasons = run(tmp_path / "out", *(tmp_path / name for name in ("a.json", "b.json", "c.jsonl.gz", "d.csv")))
    assert reasons == []
    assert [row.prompt for row in kept] == [row["prompt"] for row in rows] * 4


def test_a_file_that_changed_since_the_stop_begins_the_source_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 5)
    for name in "ab":
        text = "".join(json.dumps({"prompt": f"{name}{n}", "language": "en"}) + "\n" for n in range(12))
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
    config = FilesSource(kind="files", name="mine", paths=(tmp_path / "a.jsonl", tmp_path / "b.jsonl"), licence="mit")
    out = tmp_path / "out"
    out.mkdir()

    class Stop:
        def report(self, step, done, total, message, metrics):
            if message == "b.jsonl":
                raise KeyboardInterrupt

    home = tmp_path / "home"
    with pytest.raises(KeyboardInterrupt):
        source.run(config, {}, out, Progress("collect.source", Machine(), home, (Stop(),)))
    (tmp_path / "a.jsonl").write_text('{"prompt": "new", "language": "en"}\n', encoding="utf-8")
    session = SessionFile.open(home, "s", "collect.source")
    source.run(config, {}, out, Progress("collect.source", Machine(), home, session=session))
    kept = records.read(out / "records.parquet")
    assert [row.prompt for row in kept] == ["new", *(f"b{n}" for n in range(12))]
    assert "gathering anew" in session.session.problems[0]
    evidence = durable.read_json(out / "sources.json")["evidence"]
    assert [len(file["sha256"]) for file in evidence["files"]] == [64, 64]


def test_a_changed_file_is_collected_again(tmp_path):
    path = listed(tmp_path)
    path.write_text('{"prompt": "One?", "language": "en"}\n', encoding="utf-8", newline="\n")
    data = {
        "base": {"kind": "demo"}, "machine": {"home": str(tmp_path / "home")},
        "collect": {"sources": [{"kind": "files", "name": "mine", "paths": [path.name], "licence": "mit"}]},
    }  # fmt: skip
    config = check(data, "test", tmp_path)
    store, ref = Store(config.home()), Ref("collect.source", "mine")
    first = execute(ref, config, store)
    assert execute(ref, config, store).manifest.key == first.manifest.key
    path.write_text('{"prompt": "Another?", "language": "en"}\n', encoding="utf-8", newline="\n")
    second = execute(ref, config, store)
    assert [row.prompt for row in records.read(second.path / "records.parquet")] == ["Another?"]
    pinned = config.collect.sources[0].pinned()
    path.write_text('{"prompt": "A third?", "language": "en"}\n', encoding="utf-8", newline="\n")
    with pytest.raises(InputError, match="have the hashes"):
        source.run(pinned, {}, tmp_path / "out", Progress(str(ref), Machine(), tmp_path))
