"""GeoJSON: the features of one FeatureCollection. A feature's properties are columns, its geometry is JSON text.

Whether coordinates lie where they should is not asked here.
"""

from __future__ import annotations

from typing import Any

from dopa_pipelines.sources.json_document import JsonReader

GEOMETRY = "geometry"


class GeoJsonReader(JsonReader):
    """Format ``geojson``. The column whose title is ``geometry`` takes the geometry; ``id`` is the feature's, too."""

    def records_path(self) -> tuple[str, ...]:
        return ("features",)

    def check(self, around: Any) -> None:
        if around.get("type") != "FeatureCollection":
            raise self.refuse(f"is no FeatureCollection (its type is {around.get('type')!r}); have it exported as GeoJSON")

    def record(self, value: dict[str, Any]) -> dict[str, Any] | None:
        properties = value.get("properties")
        if value.get("type") != "Feature" or not isinstance(properties, dict | None):
            return None
        record = {"id": value["id"]} if "id" in value else {}
        return record | (properties or {}) | {GEOMETRY: value.get(GEOMETRY)}
