"""Config of upload."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from so8t.section import Section, UserPath


class DirectoryTarget(Section):
    """A folder laid out like the repository that the Hub would get."""

    kind: Literal["directory"] = "directory"
    path: UserPath | None = None
    """The folder: empty, or one that this step filled before. Default: `repository/` inside the artifact."""


RepoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]


class HubTarget(Section):
    """One model repository on the Hugging Face Hub, or up to three; HF_ENDPOINT may name another server."""

    kind: Literal["hub"]
    repo_id: RepoId
    """Repository, owner/name; made if it is absent. The token comes from HF_TOKEN or `hf auth login`, never from here."""
    adapter_repo_id: RepoId | None = None
    """Repository of their own for the adapters and the four-class head; by default they are folders of `repo_id`."""
    gguf_repo_id: RepoId | None = None
    """Repository of their own for the GGUF files and the Modelfile; by default they lie in `gguf/` of `repo_id`."""
    collection: Annotated[str, Field(min_length=1, max_length=59, pattern=r"^\S(.*\S)?$")] | None = None
    """Title of a collection of the repositories' owner that they are put into; made if it is absent."""
    private: bool = True
    """Keep repositories and collection private. An existing public one is refused unless this is false."""
    gated: Literal["auto", "manual"] | None = None
    """Readers must ask for access, which is given automatically or by hand. By default the setting is left as it is."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        named = [name.casefold() for name in self.repo_ids().values()]
        if len(set(named)) < len(named):
            raise ValueError("repo_id, adapter_repo_id and gguf_repo_id must name different repositories")
        return self

    def repo_ids(self) -> dict[str, str]:
        """What is published where: `model`, and `adapter` and `gguf` where they have a repository of their own."""
        named = {"model": self.repo_id, "adapter": self.adapter_repo_id, "gguf": self.gguf_repo_id}
        return {kind: name for kind, name in named.items() if name}


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
    accepted_findings: tuple[Annotated[str, Field(pattern=r"^\S+: \S.*$")], ...] = ()
    """What the search for secrets, personal data and paths found and you judged to be none, as `FILE: RULE`."""
