"""A tiny base, labelled rows, and what an undisturbed training makes of them."""

from pathlib import Path

import pytest
import torch

from so8t import durable, records
from tests.four_class import tiny as four
from tests.train import tiny


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    torch.set_num_threads(1)
    tiny.make_world(root)
    held_out = root / "data" / "validation.parquet"
    records.write(held_out, [row.with_(prompt=f"{row.prompt} Now?") for row in records.read(held_out)])
    return root


@pytest.fixture(scope="session")
def classifier_home(labelled, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("classifier")
    four.train(labelled, home)
    return home


@pytest.fixture(scope="session")
def classifier_folder(labelled, classifier_home, tmp_path_factory) -> Path:
    """As the store would give it."""
    folder = tmp_path_factory.mktemp("artifact") / "four_class"
    for path in sorted(tiny.output(classifier_home).rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(tiny.output(classifier_home))
            durable.write_bytes(target, path.read_bytes())
    manifest = tiny.artifact(folder, "four_class").manifest
    durable.write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    return folder
