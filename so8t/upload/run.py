"""upload: assemble the complete repository, refuse what must not go out, publish it, and verify every file there.

repository/   what this step wrote (all files where the target is this folder)
files.json    every published file with size, hash and origin
receipt.json  where it went and what was verified (volatile)
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import Artifact, hash_json
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.step import Facts, Inputs
from so8t.upload import card, directory, provenance
from so8t.upload.config import DirectoryTarget, Upload
from so8t.upload.modelfile import modelfile
from so8t.upload.repository import MADE, Entry, check_entries, gather, made_entry, sums, verify_inputs
from so8t.upload.scan import known_texts, refuse_findings, scan

REPOSITORY = "repository"


def run(config: Upload, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Publish; nothing is sent before every input verified and the scan found nothing."""
    verify_inputs(inputs, progress)
    taken = gather(inputs)
    found = provenance.lineage(inputs, progress.home)
    progress.update(0, 1, "writing the card")
    entries = make(config, inputs, taken, found, out / REPOSITORY)
    check_entries(entries)
    progress.update(0, 1, "looking for secrets, personal data and paths")
    refuse_findings(scan(entries, known_texts(progress.home)))
    listed = [
        {"path": e.path, "size_bytes": e.size_bytes, "sha256": e.sha256, "origin": e.role or "upload"} for e in entries
    ]
    durable.write_json(out / "files.json", listed)
    place = publish(config, entries, out, progress)
    durable.write_json(out / "receipt.json", {**place, "artifacts": provenance.origins(found)})
    return {**place, "files": len(entries), "bytes": sum(entry.size_bytes for entry in entries)}


def make(config: Upload, inputs: Inputs, taken: list[Entry], found: dict[str, Artifact], root: Path) -> list[Entry]:
    """Write the files that no artifact holds; give the entries of the whole repository, sorted by path."""
    rows = provenance.count_rows(inputs["data"].path)
    provenance.check_licences(rows, provenance.allowed_licences(inputs["collected"].path))
    facts = card_facts(config, inputs, taken, rows)
    texts = {
        "README.md": card.card(config, facts),
        "Modelfile": modelfile(inputs["fold"].path / "hf", facts.models[0], facts.mmproj),
    }
    for name, text in texts.items():
        durable.write_text(root / name, text)
    durable.write_json(root / "provenance.json", provenance.provenance(taken, inputs, found, rows))
    entries = [*taken, *(made_entry(root, name) for name in MADE if name != directory.SUMS)]
    durable.write_text(root / directory.SUMS, sums(entries))
    return sorted([*entries, made_entry(root, directory.SUMS)], key=lambda entry: entry.path)


def card_facts(config: Upload, inputs: Inputs, taken: list[Entry], rows: list[dict[str, Any]]) -> card.Facts:
    """Everything that the card says, from the artifacts; InputError where there is no GGUF file to speak of."""
    ggufs = sorted((entry for entry in taken if entry.path.endswith(".gguf")), key=lambda e: (e.size_bytes, e.path))
    models = [entry.path for entry in ggufs if "mmproj" not in entry.path]
    if not models:
        raise InputError("the bake left no GGUF file", "at least the F16 file of bake.fold")
    model = durable.read_json(inputs["fold"].path / "hf" / "config.json")
    return card.Facts(
        name=str(inputs["fold"].manifest.config["name"]),
        licence=provenance.choose_licence(config.licence, inputs["base"]),
        base=inputs["base"].manifest.config,
        results=durable.read_json(inputs["benchmark"].path / "results.json"),
        data_content=inputs["data"].content,
        gates=durable.read_json(inputs["bake"].path / "gates.json"),
        rows=rows,
        attributions=provenance.attributions(inputs["collected"].path),
        models=models,
        mmproj=next((entry.path for entry in ggufs if "mmproj" in entry.path), None),
        context_tokens=int(model.get("original_max_position_embeddings") or model["max_position_embeddings"]),
    )


def publish(config: Upload, entries: list[Entry], out: Path, progress: Progress) -> dict[str, Any]:
    """Bring the entries to the target and verify them there; give what the receipt says."""
    total = sum(entry.size_bytes for entry in entries)

    def report(done_bytes: int, message: str) -> None:
        progress.update(done_bytes, total, message)

    if isinstance(config.target, DirectoryTarget):
        root = config.target.path or out / REPOSITORY
        if config.target.path:
            directory.check_free(root)
        copied = directory.publish(root, entries, report)
        verified = directory.verify(root, entries, report)
        # While the step works, its folder has another name than the finished artifact will.
        final = config.target.path or out.with_name(out.name.removesuffix(".partial")) / REPOSITORY
        return {"target": "directory", "repository": str(final), "copied": copied, "verified": verified}
    # The client is heavy, and only this target needs it.
    from so8t.upload.hub import Publisher

    content = hash_json([[entry.path, entry.sha256] for entry in entries])
    receipt = Publisher(config.target, entries, content, report).publish()
    return {"target": "hub", **asdict(receipt)}
