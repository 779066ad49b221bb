"""Which step reads what: the one place that knows the shape of the whole."""

from so8t.config import Config
from so8t.local_files import LocalFiles
from so8t.section import Section
from so8t.step import Ref, Step

COLLECT, PREPROCESS, TRAIN, BAKE = Ref("collect"), Ref("preprocess"), Ref("train"), Ref("bake")
BENCHMARK, UPLOAD, CLEANUP = Ref("benchmark"), Ref("upload"), Ref("cleanup")
BASE, FOLD, SEARCH = Ref("collect.base"), Ref("bake.fold"), Ref("train.search")
IMATRIX = Ref("bake.imatrix")
FOUR_CLASS = Ref("four_class")  # a flow of its own, and of the pipeline where the reward asks it
QUESTIONS = "collect.questions"  # a part for each task whose questions are brought from elsewhere
BASE_FILE = "A-"  # before a type: the untouched base as a file of it
STOCK = "bake.stock"
MODEL = "model"  # the one part of preprocess.classes
# The name of collect.tower's one part, which exists only where a pretrained tower is configured.
TOWER = "vision"
SEVEN = (COLLECT, PREPROCESS, TRAIN, BAKE, BENCHMARK, UPLOAD, CLEANUP)


def _sources(config: Config) -> list[str]:
    return [source.name for source in config.collect.sources]


def _quantized(config: Config) -> list[str]:
    return list(config.bake.quantizations)


def _source(config: Config, part: str) -> Section:
    """Local files count by their hashes."""
    source = next(s for s in config.collect.sources if s.name == part)
    return source.pinned() if isinstance(source, LocalFiles) else source


def _guides(config: Config) -> list[str]:
    """One importance matrix, or none."""
    return [""] if any(config.bake.quantize(name).guided for name in _quantized(config)) else []


def _stock(config: Config) -> list[str]:
    """The base's text model and its untrained tower, where a file of the base is asked."""
    return ["text", "vision"] if config.base_types() else []


def _quantize_parts(config: Config) -> list[str]:
    """The files that are published, then those of the base."""
    return _quantized(config) + [f"{BASE_FILE}{name}" for name in config.base_types() if name != "F16"]


def _quantize_needs(config: Config, part: str) -> dict[str, Ref]:
    if part.startswith(BASE_FILE):
        return {"fold": Ref(STOCK, "text")}
    return {"fold": FOLD, **({"imatrix": IMATRIX} if config.bake.quantize(part).guided else {})}


def _searched(config: Config) -> list[str]:
    """One search, or none."""
    return [""] if config.search.trials else []


def _cells(config: Config) -> list[str]:
    """Every system on every task; the part's name is `<system>:<task>`."""
    files = [f"{BASE_FILE}{name}" for name in config.base_types()]
    systems = ["A", *files, "B", "C-F16", *(f"C-{name}" for name in config.bake.quantizations)]
    return [f"{system}:{task}" for system in systems for task in config.benchmark.tasks]


def _judged(config: Config) -> list[str]:
    """The cells whose replies are graded."""
    return [part for part in _cells(config) if part.partition(":")[2] in config.benchmark.rated()]


def _question_refs(config: Config) -> dict[str, Ref]:
    return {f"questions.{task}": Ref(QUESTIONS, task) for task in config.benchmark.outside()}


def _judged_needs(config: Config, part: str) -> dict[str, Ref]:
    """The replies, the questions, and a baked system's files: no model may grade itself."""
    system, _, task = part.partition(":")
    needs = {"cell": Ref("benchmark.cell", part), "questions": Ref(QUESTIONS, task)}
    return needs | ({} if system in ("A", "B") else _baked(system))


def _baked(system: str) -> dict[str, Ref]:
    if system.startswith(BASE_FILE):
        text = {"fold": Ref(STOCK, "text")} if system == "A-F16" else {"quantized": Ref("bake.quantize", system)}
        return {**text, "tower": Ref(STOCK, "vision")}
    if system == "C-F16":
        return {"fold": FOLD}
    return {"fold": FOLD, "quantized": Ref("bake.quantize", system.removeprefix("C-"))}


def _classes(config: Config) -> list[str]:
    """One part where a trained classifier labels, else none."""
    return [MODEL] if config.preprocess.classifier else []


def _classifier(config: Config, part: str) -> Section:
    assert config.preprocess.classifier
    return config.preprocess.classifier.pinned()


def _preprocess_needs(config: Config, part: str) -> dict[str, Ref]:
    classified = {"classes": Ref("preprocess.classes", MODEL)} if config.preprocess.classifier else {}
    return {"collected": COLLECT, **classified}


def _four_class_needs(config: Config, part: str) -> dict[str, Ref]:
    """Local files count by their hashes in the section, and need no preprocessed rows."""
    return {"base": BASE} if config.four_class.data.train_data else {"data": PREPROCESS, "base": BASE}


def _search_needs(config: Config, part: str) -> dict[str, Ref]:
    """The four-class model only where the reward asks it."""
    asked = {"classifier": FOUR_CLASS} if config.train.reward.classifier else {}
    return {"data": PREPROCESS, "base": BASE, **asked, **_tower_refs(config)}


def _train_needs(config: Config, part: str) -> dict[str, Ref]:
    return _search_needs(config, part) | ({"search": SEARCH} if config.search.trials else {})


def _quantize_refs(config: Config) -> dict[str, Ref]:
    return {f"quantized.{name}": Ref("bake.quantize", name) for name in _quantized(config)}


def _towers(config: Config) -> list[str]:
    return [TOWER] if config.train.vision.pretrained else []


def _tower(config: Config, part: str) -> Section:
    assert config.train.vision.pretrained is not None
    return config.train.vision.pretrained


def _tower_refs(config: Config) -> dict[str, Ref]:
    return {"tower": Ref("collect.tower", TOWER)} if config.train.vision.pretrained else {}


def _cell_needs(config: Config, part: str) -> dict[str, Ref]:
    """A and B read the base (B the training too), the others their GGUF; all get train's tokenizer."""
    system, _, task = part.partition(":")
    shared = {"data": PREPROCESS, "train": TRAIN}
    if task in config.benchmark.outside():
        shared["questions"] = Ref(QUESTIONS, task)
    return {**shared, "base": BASE} if system in ("A", "B") else {**shared, **_baked(system)}


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "collect.base", "so8t.collect.foundation", 2,
            section=lambda config, part: config.base,
            needs=lambda config, part: {},
            child=True,
        ),
        Step(
            "collect.tower", "so8t.collect.tower", 1,
            section=_tower,
            needs=lambda config, part: {},
            parts=_towers,
            child=True,
        ),
        Step(
            "collect.source", "so8t.collect.source", 4,
            section=_source,
            needs=lambda config, part: {},
            parts=_sources,
            volatile=frozenset({"times.jsonl", "crawl/"}),
            session="followed",
        ),
        Step(
            "collect", "so8t.collect.run", 2,
            section=lambda config, part: config.collect,
            needs=lambda config, part: {f"source.{name}": Ref("collect.source", name) for name in _sources(config)},
        ),
        Step(
            "preprocess.classes", "so8t.preprocess.classes", 3,
            section=_classifier,
            needs=lambda config, part: {"collected": COLLECT, "base": BASE},
            parts=_classes,
            child=True,
        ),
        Step(
            "preprocess.shard", "so8t.preprocess.shard", 2,
            section=lambda config, part: config.preprocess.shard(int(part)),
            # What the benchmark will ask is kept out of the rows.
            needs=lambda config, part: {"collected": COLLECT, **_question_refs(config)},
            counted="so8t.preprocess.order",
        ),
        Step(
            "preprocess", "so8t.preprocess.run", 5,
            section=lambda config, part: config.preprocess.pinned(),
            needs=_preprocess_needs,
            fan=("shard", "preprocess.shard"),
            volatile=frozenset({"data_card.png"}),
        ),
        Step(
            "train.search", "so8t.search.run", 2,
            section=lambda config, part: config.search_run(),
            needs=_search_needs,
            parts=_searched,
            child=True,
            # The study holds times, and pictures are of one version of matplotlib.
            volatile=frozenset({"study.sqlite", "search.md", "plots/"}),
            session="followed",
        ),
        Step(
            "train", "so8t.train.run", 3,
            section=lambda config, part: config.train,
            needs=_train_needs,
            child=True,
            volatile=frozenset({"progress.jsonl", "alpha.md"}),
            session="own",
        ),
        Step(
            "four_class", "so8t.four_class.run", 2,
            section=lambda config, part: config.four_class.pinned(),
            needs=_four_class_needs,
            child=True,
            session="own",
        ),
        Step(
            "bake.fold", "so8t.bake.fold", 2,
            section=lambda config, part: config.bake.fold,
            needs=lambda config, part: {"base": BASE, "train": TRAIN},
            child=True,
        ),
        Step(
            STOCK, "so8t.bake.stock", 1,
            section=lambda config, part: config.bake.stock(part),
            needs=lambda config, part: {"base": BASE} if part == "text" else {"train": TRAIN},
            parts=_stock,
            child=True,
        ),
        Step(
            "bake.imatrix", "so8t.bake.imatrix", 1,
            section=lambda config, part: config.bake.imatrix,
            needs=lambda config, part: {"data": PREPROCESS, "base": BASE, "train": TRAIN},
            parts=_guides,
            child=True,
        ),
        Step(
            "bake.quantize", "so8t.bake.quantize", 1,
            section=lambda config, part: config.bake.quantize(part.removeprefix(BASE_FILE)),
            needs=_quantize_needs,
            parts=_quantize_parts,
            child=True,
        ),
        Step(
            "bake", "so8t.bake.run", 3,
            section=lambda config, part: config.bake,
            needs=lambda config, part: {"base": BASE, "train": TRAIN, "data": PREPROCESS, "fold": FOLD, **_quantize_refs(config)},
            child=True,
            # Their last digits depend on the number of threads.
            volatile=frozenset({"model_files.md", "gates.json", "gates.md", "measured.json"}),
        ),
        Step(
            QUESTIONS, "so8t.collect.questions", 1,
            section=lambda config, part: config.benchmark.questions(part),
            needs=lambda config, part: {},
            parts=lambda config: config.benchmark.outside(),
        ),
        Step(
            "benchmark.cell", "so8t.benchmark.cell", 3,
            section=lambda config, part: config.benchmark.cell(*part.split(":")),
            needs=_cell_needs,
            parts=_cells,
            child=True,
            volatile=frozenset({"samples.sqlite", "speed.json"}),
            session="followed",
        ),
        Step(
            "benchmark.judged", "so8t.benchmark.grade", 1,
            section=lambda config, part: config.benchmark.judged(*part.split(":")),
            needs=_judged_needs,
            parts=_judged,
            child=True,
            volatile=frozenset({"grades.sqlite"}),
            session="followed",
        ),
        Step(
            "benchmark", "so8t.benchmark.run", 5,
            section=lambda config, part: config.benchmark.pinned(),
            needs=lambda config, part: {
                "data": PREPROCESS, "train": TRAIN, "bake": BAKE, **_question_refs(config),
                **{f"cell.{part}": Ref("benchmark.cell", part) for part in _cells(config)},
                **{f"judged.{part}": Ref("benchmark.judged", part) for part in _judged(config)},
            },
            child=True,
            volatile=frozenset({"speed.json", "speed.md"}),
        ),
        Step(
            "upload", "so8t.upload.run", 4,
            section=lambda config, part: config.upload,
            needs=lambda config, part: {
                "base": BASE, "collected": COLLECT, "data": PREPROCESS, "train": TRAIN,
                "fold": FOLD, "bake": BAKE, "benchmark": BENCHMARK, **_quantize_refs(config),
            },
            volatile=frozenset({"receipt.json"}),
            session="followed",
        ),
        Step(
            "cleanup", "so8t.cleanup.run", 1,
            section=lambda config, part: config.cleanup,
            needs=lambda config, part: {"upload": UPLOAD},
            volatile=frozenset({"plan.json", "removed.json"}),
        ),
    )
}  # fmt: skip
