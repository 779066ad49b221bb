"""Config of preprocess."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from so8t.artifacts import Artifact, check_hashes, check_sizes, hash_file, load
from so8t.errors import InputError
from so8t.section import Section, UserPath

Share = Annotated[float, Field(gt=0, lt=1)]


class ArtifactFolder(Section):
    """What another run has made; it counts by its content."""

    step: ClassVar[str]
    folder: UserPath
    """Where the whole artifact lies."""
    content: str = ""
    """Its content hash; filled in by itself, and checked where you give it."""

    def pinned(self) -> Self:
        """With the artifact's content, which decides the key; InputError for a folder that is none or not whole."""
        if problems := check_sizes(self.folder):
            raise InputError(f"{self.folder}: {problems[0]}", f"a whole {self.step} artifact", "mend the path")
        artifact = load(self.folder)
        if artifact.manifest.step != self.step or self.content not in ("", artifact.content):
            raise InputError(
                f"{self.folder} is a {artifact.manifest.step} artifact with the content {artifact.content}",
                f"a {self.step} artifact{f' with {self.content}' if self.content else ''}",
            )
        return self.model_copy(update={"content": artifact.content})

    def checked(self) -> Artifact:
        """The artifact, to be read now; InputError for a damaged one, or another than the key was made with."""
        if problems := check_hashes(self.folder):
            raise InputError(
                f"{problems[0]}", f"an undamaged {self.step} artifact", "make it again, or name another one"
            )
        artifact = load(self.folder)
        if self.content not in ("", artifact.content):
            raise InputError(
                f"{self.folder} now has the content {artifact.content}", f"{self.content}, as when the step was planned",
                "run it again: what lies there now counts as another input; or name the artifact's own folder",
            )  # fmt: skip
        return artifact


class Classifier(ArtifactFolder):
    """A trained four-class classifier, trained on this config's base, which then labels the rows that nobody has labelled."""

    step = "four_class"
    batch: Annotated[int, Field(ge=1)] = 32
    """Rows a forward pass."""


class EarlierSplits(ArtifactFolder):
    """What an earlier preprocess has made of fewer rows."""

    step = "preprocess"


class LocalFile(Section):
    """A file that counts by its content."""

    path: UserPath
    """Where it lies."""
    sha256: str = ""
    """Its hash; filled in by itself, and checked where you give it."""

    def pinned(self) -> Self:
        """With the file's hash, which decides the key; InputError for a file that is absent or another."""
        if not self.path.is_file():
            raise InputError(f"no file {self.path}", "the files that preprocess names", "mend the path")
        found = hash_file(self.path)
        if self.sha256 not in ("", found):
            raise InputError(f"{self.path} has the hash {found}", self.sha256, "restore the file")
        return self.model_copy(update={"sha256": found})


class Prompts(LocalFile):
    """Benchmark prompts, which no row may hold: JSONL, one object a line."""

    key: Annotated[str, Field(min_length=1)] = "input"
    """Under which key the prompt stands."""


class HumanLabels(LocalFile):
    """What a person answered: active.csv of an earlier preprocess with `label` filled in, or JSONL with id and label."""


class RowByRow(Section):
    """What decides what is done to each row by itself."""

    seed: int = 0
    """Seed of the permutations, of the forest and of the split's hash."""
    benchmark_prompts: tuple[Prompts, ...] = ()
    """Rows that hold one of these, word for word or with a few edits, are removed as contamination; so are, without being
    named here, those that hold a question of `benchmark.data`."""
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    """Edge of the square picture that the image tower reads, in pixels."""
    resampling: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """How pictures are brought to that size; a pretrained tower wants what it was trained with."""
    mel_low_hz: Annotated[float, Field(ge=0)] = 600.0
    """Lower end of the spectrogram; the default suits telephone tones."""
    mel_high_hz: Annotated[float, Field(gt=0)] = 1750.0
    """Upper end of the spectrogram."""
    mel_range_db: Annotated[float, Field(gt=0)] = 40.0
    """From black to white; white is the loudest cell."""


class Shard(RowByRow):
    """One shard of the rows."""

    number: Annotated[int, Field(ge=0)]
    """Which one, counted in the canonical order of all rows."""
    rows: Annotated[int, Field(ge=1)]
    """Rows of every shard but the last."""


class Preprocess(RowByRow):
    """Cleaning, labelling and splitting."""

    shard_rows: Annotated[int, Field(ge=50)] = 20_000
    """Rows that are read, masked and measured as one task; the result's bytes do not depend on it."""
    languages: tuple[Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z]+)?$")], ...] = ()
    """Texts written in another language (ISO 639 code, such as ja) are removed; none: all are kept."""
    labeller_rows_max: Annotated[int, Field(ge=1)] = 20_000
    """Labelled texts from which the labeller learns; of more, so many are drawn by a hash of their ids."""
    near_duplicate: Share = 0.7
    """Jaccard of character 5-grams from which the later of two rows of one class is dropped."""
    same_group: Share = 0.5
    """Jaccard from which two rows share a group, and so a split."""
    quality_worst: Share = 0.02
    """Share of a source's texts in one language, and of all crawled pages in it, that may go as odd ones; below 50 texts
    none are looked for."""
    quality_z: Annotated[float, Field(gt=0)] = 8.0
    """Such a row goes only if one feature lies this many robust deviations from the median of those it is judged among."""
    label_confidence_min: Share = 0.6
    """Calibrated probability below which a row that nobody has labelled becomes ESCALATION."""
    reply_confidence_min: Share = 0.9
    """Calibrated probability of ALLOW above which a row that only a model has labelled is learnt with its reply."""
    classifier: Classifier | None = None
    """Labels rows that nobody has labelled; none: the labeller that preprocess fits on the labelled ones."""
    human_labels: HumanLabels | None = None
    """Classes that a person gave; they go before those that the rows came with."""
    splits_of: EarlierSplits | None = None
    """Rows of this earlier artifact keep their splits, and none of them makes way for a row that came later; none: all rows
    are placed anew, and one that joins two groups may bring one of them into the other's split."""
    active_max: Annotated[int, Field(ge=0)] = 20
    """Rows without a human label that active.csv asks a person about: the labeller's least sure, no two alike."""
    review_max: Annotated[int, Field(ge=0)] = 20
    """Rows that the data card lists for review because the labeller contradicts their label."""
    validation: Share = 0.15
    """Share of groups held out to steer training."""
    test: Share = 0.25
    """Share of groups held out for the benchmark."""

    @model_validator(mode="after")
    def _consistent(self) -> "Preprocess":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on")
        if self.same_group > self.near_duplicate:
            raise ValueError("same_group lies above near_duplicate")
        if self.mel_low_hz >= self.mel_high_hz:
            raise ValueError("mel_low_hz is not below mel_high_hz")
        return self

    def pinned(self) -> "Preprocess":
        """With the content of the classifier and of all files in it."""
        prompts = tuple(file.pinned() for file in self.benchmark_prompts)
        classifier = self.classifier and self.classifier.pinned()
        people, earlier = self.human_labels and self.human_labels.pinned(), self.splits_of and self.splits_of.pinned()
        return self.model_copy(
            update={
                "classifier": classifier, "benchmark_prompts": prompts, "human_labels": people, "splits_of": earlier,
            }
        )  # fmt: skip

    def shard(self, number: int) -> Shard:
        """The section of the step preprocess.shard, whose files count by their content."""
        prompts = tuple(file.pinned() for file in self.benchmark_prompts)
        given = {name: getattr(self, name) for name in RowByRow.model_fields} | {"benchmark_prompts": prompts}
        return Shard(number=number, rows=self.shard_rows, **given)
