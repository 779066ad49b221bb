"""Makes the work pool and the deployments of `prefect.yaml` known to the local server.

The same as `prefect deploy --all`, through the client: two calls instead of two processes of seconds each, which
would stand between a boot and the first resumed step.
"""

import contextlib
import importlib
import logging
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from deployments.form import short

PROJECT = Path(__file__).resolve().parent.parent
POOL = "so8t"
# What the server answers to parameters that do not fit the schema.
REFUSED = frozenset({409, 422})
logger = logging.getLogger(__name__)
PROJECT_TEMPLATE = "{{ $SO8T_PROJECT }}"


def register(
    client: SyncPrefectClient, parameters: dict[str, dict[str, Any]], *, keep: bool = False
) -> dict[str, UUID]:
    """Create or update every deployment; `parameters` are defaults by flow name. Gives ids by `flow/deployment`.

    With `keep` a deployment that exists keeps its defaults, which are those of `so8t up`; its schema is of this version,
    or the server would refuse a config with a key that is new. Defaults that name a key which this version no longer has
    are replaced by `parameters`, and this is said.
    """
    template = ProcessWorker.get_default_base_job_template()
    with contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    described = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))
    pull = _filled(described["pull"])
    ids = {}
    for deployment in described["deployments"]:
        module, _, attribute = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), attribute)
        name = f"{flow.name}/{deployment['name']}"
        schema = short(parameter_schema(flow).model_dump_for_openapi(), flow.name)
        known = _known(client, name) if keep else None
        same = known is not None and known.description == deployment["description"]
        if known is not None and same and known.parameter_openapi_schema == schema:
            ids[name] = known.id
            continue
        create = partial(
            client.create_deployment,
            flow_id=client.create_flow(flow),
            name=deployment["name"],
            entrypoint=deployment["entrypoint"],
            description=deployment["description"],
            tags=deployment["tags"],
            work_pool_name=deployment["work_pool"]["name"],
            pull_steps=pull,
            parameter_openapi_schema=schema,
            enforce_parameter_schema=True,
        )
        ours = parameters.get(flow.name, {})
        try:
            ids[name] = create(parameters=ours if known is None else known.parameters)
        except PrefectHTTPStatusError as error:
            if known is None or error.response.status_code not in REFUSED:
                raise
            logger.warning("%s: its defaults are of another version and are replaced by those of this config", name)
            ids[name] = create(parameters=ours)
    return ids


def _known(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner) for inner in value]
    return value.replace(PROJECT_TEMPLATE, str(PROJECT)) if isinstance(value, str) else value
