"""Config of benchmark: which tasks are asked, and the contrasts, declared before any answer is seen."""

import hashlib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from so8t.artifacts import hash_file
from so8t.errors import InputError
from so8t.local_files import content_of
from so8t.questions import FileQuestions, HubQuestions, Questions
from so8t.section import Section, UserPath

# Asked of the pipeline's own test split.
OWN = frozenset({"safety", "digits", "tones"})
RATED = frozenset({"elyza_tasks_100"})
HARNESS = "lm_eval."
Shipped = Literal[
    "safety", "digits", "tones",
    "elyza_tasks_100", "jcommonsenseqa", "jcommonsensemorality", "mmlu", "gsm8k", "hellaswag", "arc_challenge", "winogrande",
]  # fmt: skip
Task = Shipped | Annotated[str, Field(pattern=r"^lm_eval\.[\w.+-]+$")]
Share = Annotated[float, Field(gt=0, lt=1)]
BaseType = Literal["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]


def task_text(name: str) -> str:
    """The YAML of a task that comes with the package."""
    return resources.files("so8t.benchmark").joinpath("tasks", f"{name}.yaml").read_text(encoding="utf-8")


class Cell(Section):
    """One system on one task."""

    system: str
    """A, A-<type>, B, C-F16 or C-<quantization>."""
    task: str
    """Name of the task."""
    task_sha256: str
    """Digest of the task's YAML (or of the harness's settings): a changed task is another cell."""
    items_max: Annotated[int, Field(ge=0)] = 0
    """Items asked of a task on questions from outside; 0 takes all. Which ones depends on their ids alone."""
    tokens_max: Annotated[int, Field(ge=0)] = 0
    """Longest reply to a question from outside; 0 takes what the task's file says."""
    kv_cache: Literal["F16", "F32"] = "F16"
    """Type of llama.cpp's cache. F16 is what its users run; F32 agrees with transformers to 1e-4 nats."""
    harness_tasks: Path | None = None
    """A folder with task files for lm-evaluation-harness, beside its own."""
    batch_items: Annotated[int, Field(ge=1)] = 32
    """Items scored and stored at a time. Batches are fixed, so a resumed run gives the same bits."""
    context_tokens: Annotated[int, Field(ge=32)] = 4096
    """Longest prompt; a longer one is an error, never a wrong answer. The base's original context caps it."""
    replies: Annotated[int, Field(ge=0)] = 4
    """Items that are also answered in full, greedily, to show the thinking format at work."""
    reply_tokens: Annotated[int, Field(ge=1)] = 160
    """Longest full answer."""


class Contrast(Section):
    """One declared comparison of two systems, on each of its tasks."""

    name: str
    """What the comparison tells apart, for example the training or the baking."""
    of: str
    """A system; `C-*` stands for every quantized one."""
    against: str
    """The system that it is compared with; `A-*` for the base in a file of the same type, where there is one."""
    test: Literal["superiority", "equivalence", "non_inferiority"]
    """What is to be shown."""
    margin: Share = 0.05
    """Largest accuracy difference that counts as none; superiority does not use it."""
    rating_margin: Annotated[float, Field(gt=0, lt=4)] = 0.5
    """The same for a judge's mean grade, in points of its scale from 1 to 5."""
    tasks: tuple[Task, ...] = ()
    """On which tasks; none named means all that the benchmark asks."""


CONTRASTS = (
    Contrast(name="training", of="B", against="A", test="superiority"),
    # The same type on both sides: what differs is the training alone.
    Contrast(name="delivered", of="C-*", against="A-*", test="superiority"),
    Contrast(name="baking", of="C-F16", against="B", test="equivalence", margin=0.03),
    Contrast(name="quantization", of="C-*", against="C-F16", test="non_inferiority", margin=0.05),
)


class EndpointJudge(Section):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["endpoint"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    """Up to and with `/v1`."""
    model: Annotated[str, Field(min_length=1)]
    """The model's name there, with its version where it has one."""
    key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] = "SO8T_JUDGE_KEY"
    """Environment variable that holds the key; it is read when a grade is asked for, and kept nowhere."""
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """Wait for one grade."""
    tries: Annotated[int, Field(ge=1)] = 5
    """For one grade, with growing pauses; 401, 403 and 404 stop at once."""

    @property
    def label(self) -> str:
        """How reports name it."""
        return f"{self.model} at {urlsplit(self.url).hostname}"

    def pinned(self) -> Self:
        """An endpoint's content cannot be pinned: its answers are kept instead."""
        return self


class LocalJudge(Section):
    """A GGUF file, asked in this process."""

    kind: Literal["gguf"]
    path: UserPath
    """The file."""
    sha256: str = ""
    """Its hash; empty takes the file as it is."""
    context_tokens: Annotated[int, Field(ge=512)] = 4096
    """Longest question with its grade."""

    @property
    def label(self) -> str:
        """How reports name it: a local judge is no published one."""
        return f"the local file {self.path.name} (sha256 {self.sha256[:12]})"

    def pinned(self) -> Self:
        """With the file's hash, which decides the key; InputError for a file that is absent or another."""
        if not self.path.is_file():
            raise InputError(f"no file {self.path}", "the GGUF file of benchmark.judge", "mend the path")
        found = content_of(self.path)
        if self.sha256 not in ("", found):
            raise InputError(f"{self.path} has the hash {found}", self.sha256, "restore the file")
        return self.model_copy(update={"sha256": found})


Judge = Annotated[EndpointJudge | LocalJudge, Field(discriminator="kind")]


class Judged(Section):
    """One system's replies to one task, graded."""

    system: str
    """As in Cell."""
    task: str
    """Name of the task."""
    task_sha256: str
    """Digest of the task's YAML."""
    judge: Judge
    """Who grades."""
    repeats: Annotated[int, Field(ge=0)] = 20
    """Replies that are graded a second time, for the judge's agreement with itself (quadratic kappa)."""
    reply_tokens: Annotated[int, Field(ge=16)] = 512
    """Longest reply of the judge."""


class Benchmark(Section):
    """Which tasks are asked, and what is compared."""

    tasks: tuple[Task, ...] = ("safety", "digits", "tones")
    """Tasks that come with the package, or `lm_eval.NAME` for one of lm-evaluation-harness (extra `lm-eval`)."""
    data: dict[Shipped, Questions] = Field(default_factory=dict)
    """Where the questions of a task come from; every task needs it but safety, digits, tones and lm_eval's."""
    judge: Judge | None = None
    """Grades the replies to ELYZA-tasks-100. Without one there is no ELYZA score."""
    judge_repeats: Annotated[int, Field(ge=0)] = 20
    """See Judged.repeats."""
    judge_tokens: Annotated[int, Field(ge=16)] = 512
    """See Judged.reply_tokens."""
    items_max: Annotated[int, Field(ge=0)] = 0
    """See Cell."""
    tokens_max: Annotated[int, Field(ge=0)] = 0
    """See Cell."""
    kv_cache: Literal["F16", "F32"] = "F16"
    """See Cell."""
    harness_tasks: UserPath | None = None
    """See Cell."""
    base_types: tuple[BaseType, ...] | None = None
    """As files of which types the untouched base is asked too, beside transformers: F16, or types that `bake.quantizations`
    has. Nothing said takes the first of those without a guide; the files are not published."""
    contrasts: tuple[Contrast, ...] = CONTRASTS
    """Declared beforehand; Holm's correction spans the tests of one superiority contrast."""
    alpha: Share = 0.05
    """Error of the first kind."""
    power: Share = 0.8
    """For the minimum detectable effect beside every null result."""
    resamples: Annotated[int, Field(ge=200)] = 10_000
    """Bootstrap and permutation samples."""
    seed: int = 20_251_107
    """Of the resampling."""
    calibration_bins: Annotated[int, Field(ge=2)] = 10
    """Equal-mass bins of the calibration error."""
    batch_items: Annotated[int, Field(ge=1)] = 32
    """See Cell."""
    context_tokens: Annotated[int, Field(ge=32)] = 4096
    """See Cell."""
    replies: Annotated[int, Field(ge=0)] = 4
    """See Cell."""
    reply_tokens: Annotated[int, Field(ge=1)] = 160
    """See Cell."""

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tasks)) < len(tasks):
            raise ValueError("a task is named twice")
        return tasks

    @model_validator(mode="after")
    def _questions_are_there(self) -> Self:
        missing = [name for name in self.outside() if name not in self.data]
        if missing:
            raise ValueError(f"benchmark.data says nothing of {', '.join(missing)}: kind hub or files")
        return self

    @model_validator(mode="after")
    def _contrasts_are_asked(self) -> Self:
        for contrast in self.contrasts:
            if absent := [name for name in contrast.tasks if name not in self.tasks]:
                raise ValueError(
                    f"the contrast {contrast.name!r} names {', '.join(absent)}, which benchmark.tasks does not ask"
                )
        return self

    def outside(self) -> list[str]:
        """The tasks whose questions are brought from elsewhere."""
        return [name for name in self.tasks if name not in OWN and not name.startswith(HARNESS)]

    def rated(self) -> list[str]:
        """The tasks that a judge grades, if there is one."""
        return [name for name in self.tasks if name in RATED] if self.judge else []

    def questions(self, task: str) -> HubQuestions | FileQuestions:
        """Where a task's questions come from, local files with their hashes."""
        found: HubQuestions | FileQuestions = self.data[task]  # type: ignore[index]
        return found.pinned() if isinstance(found, FileQuestions) else found

    def pinned(self) -> Self:
        """With the content of every local file in it."""
        data = {task: self.questions(task) for task in self.data}
        return self.model_copy(update={"data": data, "judge": self.judge and self.judge.pinned()})

    def cell(self, system: str, task: str) -> Cell:
        """The section of one cell."""
        harness = task.startswith(HARNESS)
        return Cell(
            system=system,
            task=task,
            task_sha256=_harness_digest(self.harness_tasks) if harness else _digest(task_text(task)),
            items_max=0 if task in OWN else self.items_max,
            tokens_max=self.tokens_max,
            kv_cache=self.kv_cache,
            harness_tasks=self.harness_tasks if harness else None,
            batch_items=self.batch_items,
            context_tokens=self.context_tokens,
            replies=self.replies,
            reply_tokens=self.reply_tokens,
        )

    def judged(self, system: str, task: str) -> Judged:
        """The section of one system's grades."""
        assert self.judge
        return Judged(
            system=system,
            task=task,
            task_sha256=_digest(task_text(task)),
            judge=self.judge.pinned(),
            repeats=self.judge_repeats,
            reply_tokens=self.judge_tokens,
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _harness_digest(folder: Path | None) -> str:
    """Of the version that is installed and of everything in the user's folder: its YAML includes files of any name, calls
    functions in Python files and reads rows beside it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = [version("lm_eval")]
    except PackageNotFoundError:
        found = [""]
    if folder:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        found += [f"{path.relative_to(folder).as_posix()} {hash_file(path)}" for path in files]
    return _digest("\n".join(found))
