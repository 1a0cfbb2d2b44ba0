"""What the published OpenLineage schemas say of an event; tests that ask are skipped where the schemas are not there."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SCHEMAS = Path(__file__).resolve().parents[2] / "../shared/openlineage"


@cache
def registry() -> Any:
    if not SCHEMAS.is_dir():
        pytest.skip("the published schemas are not here (../shared/openlineage)")
    from referencing import Registry, Resource

    documents = [json.loads(path.read_text()) for path in sorted(SCHEMAS.rglob("*.json"))]
    return Registry().with_resources((document["$id"], Resource.from_contents(document)) for document in documents)


def faults(event: dict[str, Any]) -> list[str]:
    """What the published schemas say is wrong: of the event, and of each facet by its own schema."""
    from jsonschema import Draft202012Validator, FormatChecker

    def against(schema: str, value: Any) -> list[str]:
        # `unevaluated` would reject what an older schema does not know; these are exact versions.
        validator = Draft202012Validator({"$ref": schema}, registry=registry(), format_checker=FormatChecker())
        return [f"{schema.rpartition('/')[2]} {error.json_path}: {error.message}" for error in validator.iter_errors(value)]

    found = against("https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent", event)
    holders = [event[key].get("facets") or {} for key in ("run", "job")]
    for dataset in event["inputs"] + event["outputs"]:
        holders += [dataset.get(key) or {} for key in ("facets", "inputFacets", "outputFacets")]
    for key, facet in ((key, facet) for holder in holders for key, facet in holder.items()):
        schema = facet["_schemaURL"]
        found += against(schema, facet)
        if not key.startswith("dopa_"):
            # The key is the one that the facet's document declares.
            document = registry().contents(schema.partition("#")[0])
            if key not in document["properties"]:
                found.append(f"{key} is not a key of {document['$id']}")
    return found
