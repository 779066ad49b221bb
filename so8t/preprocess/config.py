"""Config of preprocess."""

from typing import Annotated

from pydantic import Field, model_validator

from so8t.section import Section

Share = Annotated[float, Field(gt=0, lt=1)]


class Preprocess(Section):
    """Cleaning, labelling and splitting."""

    seed: int = 0
    """Seed of the permutations, of the forest and of the split's hash."""
    near_duplicate: Share = 0.7
    """Jaccard of character 5-grams from which the later of two rows of one class is dropped."""
    same_group: Share = 0.5
    """Jaccard from which two rows share a group, and so a split."""
    quality_worst: Share = 0.02
    """Share of rows that the isolation forest may propose for removal."""
    quality_z: Annotated[float, Field(gt=0)] = 8.0
    """A proposed row goes only if one feature lies this many robust deviations from its language's median."""
    label_confidence_min: Share = 0.6
    """Calibrated probability below which a row that nobody has labelled becomes ESCALATION."""
    review_max: Annotated[int, Field(ge=0)] = 20
    """Rows that the data card lists for review because the labeller contradicts their label."""
    validation: Share = 0.15
    """Share of groups held out to steer training."""
    test: Share = 0.25
    """Share of groups held out for the benchmark."""
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    """Edge of the square picture that the image tower reads, in pixels."""
    mel_low_hz: Annotated[float, Field(ge=0)] = 600.0
    """Lower end of the spectrogram; the default suits telephone tones."""
    mel_high_hz: Annotated[float, Field(gt=0)] = 1750.0
    """Upper end of the spectrogram."""
    mel_range_db: Annotated[float, Field(gt=0)] = 40.0
    """From black to white; white is the loudest cell."""

    @model_validator(mode="after")
    def _consistent(self) -> "Preprocess":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on")
        if self.same_group > self.near_duplicate:
            raise ValueError("same_group lies above near_duplicate")
        if self.mel_low_hz >= self.mel_high_hz:
            raise ValueError("mel_low_hz is not below mel_high_hz")
        return self
