"""Config of upload."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from so8t.section import Section


class DirectoryTarget(Section):
    """A folder laid out like the repository that the Hub would get."""

    kind: Literal["directory"] = "directory"
    path: Path | None = None
    """The folder: empty, or one that this step filled before. Default: `repository/` inside the artifact."""


class HubTarget(Section):
    """A model repository on the Hugging Face Hub, or on the server that HF_ENDPOINT names."""

    kind: Literal["hub"]
    repo_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
    """Repository, owner/name; made if it is absent. The token comes from HF_TOKEN or `hf auth login`, never from here."""
    private: bool = True
    """Keep the repository private. An existing public one is refused unless this is false."""


class Upload(Section):
    """Where the result is published, and what its card says."""

    target: Annotated[DirectoryTarget | HubTarget, Field(discriminator="kind")] = DirectoryTarget()
    """A local folder or the Hub."""
    licence: Literal["mit", "apache-2.0"] | None = None
    """Licence of the published model. It must be the base model's, which is the default."""
    tags: tuple[Annotated[str, Field(pattern=r"^[\w.+-]+$")], ...] = ("so8t", "safety", "phi-3", "gguf", "multimodal")
    """Tags of the model card."""
    intended_use: str = (
        "Research on safety-aware assistants in Japanese and English: the model classifies a request as ALLOW, "
        "ESCALATION, DENY or REFUSE before it answers. It is no substitute for medical, legal or financial advice, "
        "and no sole safeguard of a product."
    )
    """What the card says the model is for."""
    nsfw_statement: str = (
        "Adult material was used, in a pool of its own, for detection and refusal only. The model is not meant to "
        "produce such material, and none is part of this repository."
    )
    """What the card says about adult material."""
