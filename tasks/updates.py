"""Changes to artifacts that leave nothing behind in the server's database."""

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate


def update_in_place(artifact: UUID, **fields: Any) -> None:
    """Change `data` or `description`. Prefect's own update also sends an event with all of it, kept for seven days."""
    with get_client(sync_client=True) as client:
        client.request(
            "PATCH",
            "/artifacts/{id}",
            json=ArtifactUpdate(**fields).model_dump(mode="json", exclude_unset=True),
            path_params={"id": artifact},
        )
