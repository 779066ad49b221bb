"""upload: assemble the repositories, refuse what must not go out, publish them, and verify every file there.

repository/          what this step wrote (all files where the target is this folder)
repository-adapter/  the same for repositories of their own; repository-gguf/ too
files.json           every published file with repository, size, hash and origin
receipt.json         where it went and what was verified (volatile)
"""

from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import Artifact
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.step import Facts, Inputs
from so8t.upload import card, directory, provenance, publication
from so8t.upload.config import DirectoryTarget, Upload
from so8t.upload.modelfile import modelfile
from so8t.upload.repository import (
    MADE,
    Entry,
    Repository,
    check_entries,
    gather,
    made_entry,
    share,
    sums,
    verify_inputs,
)
from so8t.upload.scan import known_texts, refuse_findings, scan


def run(config: Upload, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Publish; nothing is sent before every input verified and the scan found nothing."""
    verify_inputs(inputs, progress)
    refuse_incomplete(inputs["benchmark"])
    found = provenance.lineage(inputs, progress.home)
    progress.update(0, 1, "writing the cards")
    repositories = make(config, inputs, gather(inputs), found, out)
    known = known_texts(progress.home)
    progress.update(0, 1, "looking for secrets, personal data and paths")
    for repository in repositories:
        check_entries(repository.entries)
    findings = [finding for repository in repositories for finding in scan(repository.entries, known)]
    refuse_findings(findings, config.accepted_findings)
    durable.write_json(
        out / "files.json",
        [
            {"repository": r.kind, "path": e.path, "size_bytes": e.size_bytes, "sha256": e.sha256, "origin": e.role or "upload"}
            for r in repositories
            for e in r.entries
        ],
    )  # fmt: skip
    place = publication.publish(config, repositories, out, progress)
    durable.write_json(out / "receipt.json", {**place, "artifacts": provenance.origins(found)})
    entries = [entry for repository in repositories for entry in repository.entries]
    return {**place, "files": len(entries), "bytes": sum(entry.size_bytes for entry in entries)}


def refuse_incomplete(benchmark: Artifact) -> None:
    """InputError where a system failed on an item: what is published was compared in full."""
    if not durable.read_json(benchmark.path / "results.json")["complete"]:
        raise InputError(
            "the benchmark is incomplete: some items have no answer of some system",
            "every item answered by every system",
            "see report.md of the benchmark for what failed, mend it and run again; nothing was published",
        )


def make(config: Upload, inputs: Inputs, taken: list[Entry], found: dict[str, Artifact], out: Path) -> list[Repository]:
    """Write the files that no artifact holds; give the repositories, the model's first, their entries sorted by path."""
    rows = provenance.count_rows(inputs["data"].path)
    provenance.check_licences(rows, provenance.allowed_licences(inputs["collected"].path))
    names = {"model": ""} if isinstance(config.target, DirectoryTarget) else config.target.repo_ids()
    made = []
    for kind, entries in share(taken, names).items():
        root = publication.place_of(out, kind)
        facts = card_facts(config, inputs, entries, rows, kind, names)
        durable.write_text(root / "README.md", card.card(config, facts))
        if facts.models:
            durable.write_text(root / "Modelfile", modelfile(inputs["fold"].path / "hf", facts.models[0], facts.mmproj))
        if kind == "model":
            provenance.write_samples(root / "provenance_samples.jsonl", inputs["data"].path)
        durable.write_json(root / "provenance.json", provenance.provenance(entries, inputs, found, rows))
        written = [made_entry(root, name) for name in MADE if name != directory.SUMS and (root / name).is_file()]
        durable.write_text(root / directory.SUMS, sums([*entries, *written]))
        whole = [*entries, *written, made_entry(root, directory.SUMS)]
        made.append(Repository(kind, root, sorted(whole, key=lambda entry: entry.path)))
    return made


def card_facts(
    config: Upload, inputs: Inputs, entries: list[Entry], rows: list[dict[str, Any]], kind: str, names: dict[str, str]
) -> card.Facts:
    """Everything that a card says, from the artifacts; InputError where the GGUF files have no model among them."""
    ggufs = sorted((entry for entry in entries if entry.path.endswith(".gguf")), key=lambda e: (e.size_bytes, e.path))
    models = [entry.path for entry in ggufs if "mmproj" not in entry.path]
    if not models and (kind == "gguf" or ("gguf" not in names and kind == "model")):
        raise InputError("the bake left no GGUF file", "at least the F16 file of bake.fold")
    model = durable.read_json(inputs["fold"].path / "hf" / "config.json")
    vision = inputs["fold"].path / "vision" / "config.json"
    return card.Facts(
        kind=kind,
        names=names,
        name=str(inputs["fold"].manifest.config["name"]),
        licence=provenance.choose_licence(config.licence, inputs["base"]),
        base=inputs["base"].manifest.config,
        results=durable.read_json(inputs["benchmark"].path / "results.json"),
        data_content=inputs["data"].content,
        gates=durable.read_json(inputs["bake"].path / "gates.json"),
        files=inputs["bake"].manifest.facts.get("files", []),
        rows=rows,
        datasets=provenance.datasets(inputs["collected"].path),
        attributions=provenance.attributions(inputs["collected"].path),
        models=models,
        mmproj=next((entry.path for entry in ggufs if "mmproj" in entry.path), None),
        sees=vision.is_file(),
        image_size=int(durable.read_json(vision)["image_size"]) if vision.is_file() else 0,
        context_tokens=int(model.get("original_max_position_embeddings") or model["max_position_embeddings"]),
    )
