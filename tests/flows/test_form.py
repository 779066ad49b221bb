"""The run form's schema is short, and takes and refuses what the whole one does."""

import copy
import json
import re

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from deployments.form import SHOWN, short
from flows.four_class import so8t_four_class
from flows.pipeline import DEMO, so8t_pipeline

FLOWS = [so8t_pipeline, so8t_four_class]


@pytest.fixture(params=FLOWS, ids=lambda flow: flow.name)
def schemas(request):
    """The whole one, the form's, and what the form shows."""
    whole = parameter_schema(request.param).model_dump_for_openapi()
    return whole, short(copy.deepcopy(whole), request.param.name), SHOWN[request.param.name]


def drawn(schema):
    """How many fields the form draws: those that are reached by properties."""
    refs, found = ["Config"], set()
    while refs:
        if (name := refs.pop()) not in found:
            found.add(name)
            text = json.dumps(schema["definitions"][name].get("properties", {}))
            refs += re.findall(r'"#/definitions/([^"]+)"', text)
    return sum(len(schema["definitions"][name].get("properties", {})) for name in found)


def refusals(schema, *path, value=None):
    """What is wrong with the demo's config after one change."""
    given = {"config": DEMO.model_dump(mode="json")}
    if path:
        at = given["config"]
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
    return [error.message for error in validate(given, schema)]


def test_every_key_that_is_named_exists_and_none_is_lost(schemas):
    whole, form, shown = schemas
    for name, keys in shown.items():
        assert set(keys) < set(whole["definitions"][name]["properties"]), name
    for name, definition in form["definitions"].items():
        hidden = {pattern.strip("^$") for pattern in definition.get("patternProperties", {})}
        assert set(definition.get("properties", {})) | hidden == set(whole["definitions"][name].get("properties", {}))
    assert drawn(form) < 0.35 * drawn(whole)


def test_what_is_not_drawn_is_checked_all_the_same(schemas):
    whole, form, _ = schemas
    assert refusals(form) == []
    for path, value, wanted in (
        (("recovery", "retries"), 5, True),
        (("recovery", "retries"), "many", False),
        (("train", "ppo", "clip"), -1, False),
        (("train", "ppo", "clip"), 0.1, True),
        (("machine", "threads"), -1, False),
        (("machine", "thread"), 1, False),
        (("bake", "gates", "texts"), 3, True),
        (("base", "batch"), 0, False),
    ):
        assert bool(refusals(form, *path, value=value)) is not wanted, path
        assert bool(refusals(whole, *path, value=value)) is not wanted, path


def test_another_flow_s_form_is_left_as_it_is():
    assert short({"type": "object"}, "so8t-resume") == {"type": "object"}
