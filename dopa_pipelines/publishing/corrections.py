"""Withdrawing a release, and correcting one: decisions of a person, with a reason that stays.

A withdrawn release leaves a tombstone in its place and is not released again by itself; a corrected one stays where it is, beside
an erratum that links it with the one that corrects it. How the files follow from the record is :mod:`.tombstones`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dopa_pipelines.documents import did_you_mean
from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.folders import latest_of, manifest_of, turn
from dopa_pipelines.publishing.ledger import History, history, record
from dopa_pipelines.publishing.publication import Publication
from dopa_pipelines.publishing.releases import Release, bring_to_its_end, publish
from dopa_pipelines.publishing.tombstones import follow
from dopa_pipelines.settings import Settings
from dopa_pipelines.thai import BANGKOK
from dopa_pipelines.warehouse import Role, Warehouse


@dataclass(frozen=True)
class Version:
    """A release in the list of a publication's. ``state``: latest, released, withdrawn, or gone (its folder is not there)."""

    version: str
    created: str
    rows: int
    state: str
    withdrawn: dict[str, Any] | None
    errata: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "created": self.created,
            "rows": self.rows,
            "state": self.state,
            "withdrawn": self.withdrawn,
            "errata": self.errata,
        }


def versions(warehouse: Warehouse, settings: Settings, publication: str) -> list[Version]:
    """Every release that was ever made of the publication, the newest first."""
    folder = settings.releases_path / publication
    with warehouse.connect(Role.READER) as connection:
        known = history(connection, publication)
    latest, withdrawn, errata = latest_of(folder), known.withdrawn, known.errata
    found = []
    for version, item in known.versions.items():
        there = bool(manifest_of(folder / version))
        state = "withdrawn" if version in withdrawn else "gone" if not there else "latest" if version == latest else "released"
        found.append(Version(version, item.created, item.rows, state, withdrawn.get(version), errata.get(version, [])))
    return found[::-1]


def withdraw(
    warehouse: Warehouse, settings: Settings, publication: str, version: str | None, *, why: str, by: str, run_id: str
) -> dict[str, Any]:
    """Withdraw a release, the latest where ``version`` is None; returns what its tombstone says.

    ``latest`` moves to the newest that is not withdrawn. Raises UserError where there is no such release, or no reason.
    """
    folder, reason = settings.releases_path / publication, _reason(why)
    with _turn(folder, publication), warehouse.connect(Role.LOADER) as ledger:
        bring_to_its_end(ledger, warehouse.cluster, folder, run_id)
        known = history(ledger, publication)
        current = known.current
        chosen = _known(known, publication, version or (current.version if current else None))
        if chosen in known.withdrawn:
            raise UserError(f"{publication} {chosen} was withdrawn already: {known.withdrawn[chosen]['why']}")
        manifest = _manifest(folder, chosen)
        others = History(tuple(item for item in known.records if item.version != chosen)).current
        facts = {"why": reason, "by": by, "at": _now(), "replaced_by": others.version if others else None}
        was_out = current is not None and current.version == chosen
        back = []
        if was_out and others:
            back = [(folder / others.version, _manifest(folder, others.version), {"again": True, "instead_of": chosen})]
        # Where nothing else is out, the withdrawn one stays the last that the graph knows.
        notes = {"withdrawn": facts, **({"superseded": True} if others else {})}
        record(ledger, folder / chosen, manifest, run_id, notes, back)
        follow(folder, history(ledger, publication))
    return {"publication": publication, "version": chosen, **facts}


def correct(
    warehouse: Warehouse, settings: Settings, publication: Publication, version: str, *, why: str, by: str, run_id: str
) -> tuple[Release, dict[str, Any]]:
    """Release the publication as it is now, and link it with the ``version`` that was wrong by an erratum in both.

    Where what is right went out already, only the erratum is made. Raises UserError where nothing differs from ``version``.
    """
    folder, reason = settings.releases_path / publication.name, _reason(why)
    with _turn(folder, publication.name), warehouse.connect(Role.READER) as connection:
        _known(history(connection, publication.name), publication.name, version)
    release = publish(warehouse, settings, publication, run_id)
    if release.version == version:
        raise UserError(
            f"{publication.name} is still as {version} has it, so there is nothing that corrects it; repair the data "
            "(`dopa ingest`, `dopa run`) or the publication, then correct it again."
        )
    facts = {"corrects": version, "why": reason, "by": by, "at": _now()}
    with _turn(folder, publication.name), warehouse.connect(Role.LOADER) as ledger:
        manifest = _manifest(folder, release.version)
        record(ledger, release.path, manifest, run_id, {"again": True, "erratum": facts})
        follow(folder, history(ledger, publication.name))
    return release, {"publication": publication.name, "corrected_by": release.version, **facts}


def _turn(folder: Path, publication: str) -> Any:
    if not folder.is_dir():
        raise UserError(f"{publication} was never released here: there is no folder {folder}.")
    return turn(folder)


def _known(known: History, publication: str, version: str | None) -> str:
    if version is None:
        raise UserError(f"no release of {publication} is out; `dopa release list {publication}` shows what was.")
    if version not in known.versions:
        raise UserError(f"{publication} has no release {version!r}; {did_you_mean(version, known.versions)}")
    return version


def _manifest(folder: Path, version: str) -> dict[str, Any]:
    found = manifest_of(folder / version)
    if not found:
        raise UserError(f"The folder {folder / version} is not there or lacks release.json; put it back from a backup first.")
    return found


def _reason(why: str) -> str:
    if not why.strip():
        raise UserError("say why with --why TEXT: whoever used the release will read it.")
    return why.strip()


def _now() -> str:
    return datetime.now(BANGKOK).isoformat(timespec="seconds")
