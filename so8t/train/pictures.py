"""Images of a batch as the frozen tower and projector see them: computed once, used in every pass.

B rows, L positions, V positions an image takes. An `<image>` id anywhere else (in a user's text, or drawn by
the policy) is a token like any other: transformers' own merging would ask for a further picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from so8t.batching import positions_of
from so8t.train.data import Sample
from so8t.train.learner import Learner

LOOK_BATCH = 32


@dataclass(frozen=True)
class Pictures:
    """Features [images, V, hidden], and for each row [B] which image it shows; -1 is none."""

    features: Tensor
    image_of: Tensor

    def rows(self, picked: Tensor) -> "Pictures":
        """Of some rows."""
        return Pictures(self.features, self.image_of[picked])


def no_pictures(ids: Tensor) -> Pictures:
    """For rows [B, ..] of text."""
    return Pictures(torch.zeros(0, device=ids.device), torch.full((len(ids),), -1, device=ids.device))


@torch.no_grad()
def look(learner: Learner, samples: Sequence[Sample]) -> Pictures:
    """What the samples show; a record that occurs again is looked at once."""
    shown = {sample.record.id: sample for sample in samples if sample.record.image}
    number = {record_id: i for i, record_id in enumerate(shown)}
    image_of = torch.tensor([number.get(sample.record.id, -1) for sample in samples], device=learner.device)
    parts, unique = [], list(shown.values())
    with learner.sight.cached():
        for start in range(0, len(unique), LOOK_BATCH):
            output = learner.model.model.get_image_features(
                pixel_values=learner.pixels(unique[start : start + LOOK_BATCH]),
                vision_feature_layer=learner.vision.feature_layer,
                vision_feature_select_strategy="full",
                return_dict=True,
            )
            parts += [features[None] for features in output.pooler_output]
    return Pictures(torch.cat(parts) if parts else torch.zeros(0, device=learner.device), image_of)


def embed(learner: Learner, ids: Tensor, pictures: Pictures) -> Tensor:
    """[B, L, hidden]: the tokens' embeddings, and an image's features on the first V `<image>` ids of its row."""
    embeds: Tensor = learner.model.model.language_model.embed_tokens(ids)
    shows = pictures.image_of >= 0
    if not bool(shows.any()):
        return embeds
    marks = ids == learner.vision.image_token_id
    seats = marks & (marks.cumsum(1) <= learner.vision.tokens) & shows[:, None]
    features = pictures.features[pictures.image_of[shows]].to(embeds.dtype)
    return embeds.masked_scatter(seats[..., None], features)


def hidden_states(learner: Learner, ids: Tensor, mask: Tensor, pictures: Pictures) -> Tensor:
    """Last hidden states [B, L, hidden], after the final norm."""
    states: Tensor = learner.model.model.language_model(
        inputs_embeds=embed(learner, ids, pictures),
        attention_mask=mask,
        position_ids=positions_of(mask),
        use_cache=False,
    ).last_hidden_state
    return states
