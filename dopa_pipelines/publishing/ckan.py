"""Pushing releases to a CKAN catalogue, and withdrawing them there.

Belongs here: what a dataset of the catalogue is to look like, and the order in which it becomes so. Does not belong here: how
a site is spoken to (:mod:`.ckan_site`), and how a release is made (:mod:`.releases`).

A publication has two datasets in the catalogue:

- ``<name>`` is what people find: the release's GD Catalog metadata, and a resource for each file, which links to
- ``<name>-files``, of a type of its own, which CKAN's lists leave out. Files are uploaded there.

An upload gets its ``hash`` only when the whole file was downloaded again and is the release's; one without it may be half there
and is looked at, or made again, by the next push. When all are whole, one call switches the metadata and all links of ``<name>``
together; what it no longer links to is deleted after that. So ``<name>`` never names half a file, nor files of two releases, and
its resources keep their ids, and with them the addresses that others have written down.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.ckan_site import CkanFailure, Patience, Refused, Site, Unavailable, site_of
from dopa_pipelines.publishing.folders import LATEST, manifest_of
from dopa_pipelines.publishing.publication import TIMEZONE
from dopa_pipelines.publishing.pushes import Push, Status, record
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse

FILES_TYPE = "release_files"
"""CKAN's lists and its search page show datasets of the type ``dataset`` only."""

_METADATA = "metadata.json"
_NOT_SENT = frozenset({_METADATA, "checksums.sha256"})
_WITHDRAWN = "withdrawn "
_FORMATS = {"csv": "CSV", "json": "JSON", "parquet": "Parquet", "xlsx": "XLSX", "geojson": "GeoJSON", "jsonld": "JSON-LD"}
_MIRRORED = (
    "accessible_condition",
    "data_collect",
    "data_collect_other",
    "first_year_of_data",
    "last_year_of_data",
    "disaggregate",
    "disaggregate_other",
    "unit_of_measure",
    "unit_of_multiplier",
    "unit_of_multiplier_other",
    "created_date",
    "last_updated_date",
    "data_release_calendar",
    "official_statistics",
    "data_release_date",
)
"""Keys of a dataset that its resources have as well, as ``resource_<key>`` (resource_fields of ckanext-thai_gdc's schema)."""


@dataclass(frozen=True)
class _File:
    """A file of a release as it goes out."""

    path: Path
    size: int
    sha256: str

    @property
    def hash(self) -> str:
        return f"sha256:{self.sha256}"

    @property
    def form(self) -> str:
        suffix = self.path.suffix.lstrip(".").lower()
        return _FORMATS.get(suffix, suffix.upper())


@dataclass(frozen=True)
class _Release:
    """The latest release of a publication on disk."""

    name: str
    version: str
    metadata: dict[str, Any]
    files: tuple[_File, ...]
    titles: dict[str, str]
    """What a file is, by its name; the data files come first."""


def push(
    warehouse: Warehouse,
    settings: Settings,
    names: Sequence[str],
    run_id: str,
    *,
    patience: Patience | None = None,
    look_again: bool = False,
) -> list[Push]:
    """Bring the catalogue to the latest release of each publication; nothing where it is there already.

    One that fails holds back no other. What became of each is recorded in ``ops.ckan_push``. ``look_again``: also files that were
    found whole by an earlier push are downloaded and compared. Raises :class:`UserError` where no catalogue is configured.
    """
    site = site_of(settings, patience)
    if site is None:
        raise UserError("No catalogue is configured: set DOPA_CKAN_URL, DOPA_CKAN_TOKEN and DOPA_CKAN_ORGANISATION.")
    pushed = []
    with contextlib.closing(site):
        try:
            organisation: str | None = _organisation(site)
            problem = None
        except CkanFailure as error:
            organisation, problem = None, str(error)
        for name in names:
            if organisation is None:
                made = Push(name, None, "failed", None, 0, 0, 0, problem)
            else:
                made = push_one(site, organisation, settings.releases_path / name, look_again=look_again)
            record(warehouse, site.url, made, run_id)
            pushed.append(made)
    return pushed


def push_one(site: Site, organisation: str, folder: Path, *, look_again: bool = False) -> Push:
    """Bring one dataset to the release that ``folder/latest`` names; ``organisation``: its id at the site. Failures are told,
    not raised."""
    began = time.perf_counter()
    version = None
    sent = [0, 0]
    try:
        release = _latest(folder)
        version = release.version
        with _turn(folder):
            status = _bring(site, organisation, release, sent, look_again)
        problem = None
    except UserError as error:
        status, problem = "failed", str(error)
    except OSError as error:
        status, problem = "failed", f"{folder} cannot be read: {error.strerror or error}."
    address = None if status == "failed" else f"{site.url}/dataset/{folder.name}"
    return Push(folder.name, version, status, address, sent[0], sent[1], time.perf_counter() - began, problem)


def withdraw(
    warehouse: Warehouse, settings: Settings, name: str, why: str, run_id: str, patience: Patience | None = None
) -> Push:
    """Take a publication's files out of the catalogue and leave its page, which says that it was withdrawn, when and why.

    A push brings it back only with another release than the withdrawn one. Again, it changes nothing. Raises :class:`UserError`
    where no catalogue is configured, there is no reason, or the site fails.
    """
    if not why.strip():
        raise UserError(f"Say why {name} is withdrawn: the page that stays in the catalogue tells it.")
    site = site_of(settings, patience)
    if site is None:
        raise UserError("No catalogue is configured: set DOPA_CKAN_URL, DOPA_CKAN_TOKEN and DOPA_CKAN_ORGANISATION.")
    began = time.perf_counter()
    with contextlib.closing(site):
        try:
            status, version = take_down(site, name, why)
            made = Push(name, version, status, f"{site.url}/dataset/{name}", 0, 0, time.perf_counter() - began)
        except CkanFailure as error:
            made = Push(name, None, "failed", None, 0, 0, time.perf_counter() - began, str(error))
            record(warehouse, site.url, made, run_id)
            raise
        record(warehouse, site.url, made, run_id)
    return made


def follow_withdrawal(warehouse: Warehouse, settings: Settings, name: str, why: str, run_id: str) -> str | None:
    """Bring the catalogue in step with a release that was withdrawn: to the release that is the latest now, or, where none is
    out, to a page that says why. Returns what failed; None where nothing did, or where no catalogue is configured or it never
    had the publication."""
    with warehouse.connect(Role.READER) as connection:
        known = connection.execute(
            "select from ops.ckan_push where publication = %s and status <> 'failed' limit 1", (name,)
        ).fetchone()
    site = site_of(settings) if known is not None else None
    if site is None:
        return None
    site.close()
    try:
        if manifest_of(settings.releases_path / name / LATEST):
            (made,) = push(warehouse, settings, [name], run_id)
            return made.problem
        return withdraw(warehouse, settings, name, why, run_id).problem
    except UserError as error:
        return str(error)


# What there is to push


def _latest(folder: Path) -> _Release:
    """Resolves ``latest`` once: what follows is one release, which never changes."""
    latest = folder / "latest"
    if not latest.is_symlink():
        raise UserError(f"{folder.name} has no release yet; `dopa publish {folder.name}` makes one.")
    path = folder / latest.readlink()
    manifest = json.loads((path / "release.json").read_bytes())
    listed = {entry["name"]: _File(path / entry["name"], entry["bytes"], entry["sha256"]) for entry in manifest["files"]}
    package = json.loads((path / "datapackage.json").read_bytes())
    data = [item["path"] for item in package["resources"]]
    titles = {name: f"{package['title']} [{listed[name].form}]" for name in data}
    titles["data_dictionary.csv"] = "คำอธิบายข้อมูล (data dictionary)"
    order = [*data, *sorted(name for name in listed if name not in data and name not in _NOT_SENT)]
    metadata = json.loads((path / _METADATA).read_bytes())
    return _Release(folder.name, manifest["version"], metadata, tuple(listed[name] for name in order), titles)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One push of a publication at a time: two would delete each other's uploads."""
    with (folder / ".ckan.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# What is made of it


def _organisation(site: Site) -> str:
    """The id of the organisation, which datasets show it by."""
    found = site.show("organization_show", site.organisation)
    if found is None:
        raise Refused(
            f"{site.url} has no organisation {site.organisation!r}; DOPA_CKAN_ORGANISATION is the name in its page's address.",
            404,
        )
    return str(found["id"])


def _bring(site: Site, organisation: str, release: _Release, sent: list[int], look_again: bool) -> Status:
    """See :func:`push_one`; counts files and bytes in ``sent``."""
    current = site.show("package_show", release.name)
    if current and current.get("version") == _WITHDRAWN + release.version:
        raise CkanFailure(f"{release.name} {release.version} was withdrawn from {site.url}; release a corrected one, then push.")
    store = _store(site, organisation, release)
    places = {}
    for file in release.files:
        places[file.path.name] = _whole(site, store, release, file, sent, look_again)
    status = _switch(site, organisation, release, places)
    _clear(site, store, {str(place["id"]) for place in places.values()})
    return status


def _store(site: Site, organisation: str, release: _Release) -> str:
    """The id of the dataset that files are uploaded to, made where it is not there."""
    name = f"{release.name}-files"

    def step() -> str:
        found = site.find("package_show", name)
        if found is None or found.get("state") == "deleted":
            which: dict[str, Any] = {"id": found["id"]} if found else {}
            return str(
                site.call(
                    "package_patch" if found else "package_create",
                    **which,
                    name=name,
                    title=f"ไฟล์ของชุดข้อมูล {release.metadata['title']}",
                    notes=f"ที่เก็บไฟล์ของชุดข้อมูล {release.name} / Where the files of the dataset {release.name} lie",
                    type=FILES_TYPE,
                    owner_org=organisation,
                    private=False,
                    state="active",
                )["id"]
            )
        return str(found["id"])

    return site.patiently(step)


def _whole(site: Site, store: str, release: _Release, file: _File, sent: list[int], look_again: bool) -> dict[str, Any]:
    """The stored resource that is this file, whole: the one that is there, or one that is uploaded now."""
    name = f"{release.version}/{file.path.name}"

    def step() -> dict[str, Any]:
        # Looked up anew by each attempt: one that timed out may have arrived all the same.
        for found in _resources(site, store):
            if found.get("name") != name:
                continue
            if found.get("hash") == file.hash and not look_again:
                return found
            if _is_whole(site, found, file):
                return _mark(site, found, file)
            site.call("resource_delete", id=found["id"])
        made = site.call("resource_create", upload=file.path, package_id=store, name=name, format=file.form, url=file.path.name)
        sent[0], sent[1] = sent[0] + 1, sent[1] + file.size
        if not _is_whole(site, made, file):
            site.call("resource_delete", id=made["id"])
            raise Unavailable(f"{file.path.name} of {release.name} arrived damaged at {site.url}")
        return _mark(site, made, file)

    return site.patiently(step)


def _is_whole(site: Site, resource: Mapping[str, Any], file: _File) -> bool:
    """Whether the site serves just this file."""
    if resource.get("size") not in (None, file.size, str(file.size)):
        return False
    try:
        return site.digest(str(resource["url"]), file.size) == (file.size, file.sha256)
    except Refused as refused:
        if refused.status == 404:  # recorded, and not stored
            return False
        raise


def _mark(site: Site, resource: Mapping[str, Any], file: _File) -> dict[str, Any]:
    """Note at the site that the resource was found whole."""
    if resource.get("hash") == file.hash:
        return dict(resource)
    marked: dict[str, Any] = site.call("resource_patch", id=resource["id"], hash=file.hash, size=file.size)
    return marked


def _resources(site: Site, package: str) -> list[dict[str, Any]]:
    found = site.call("package_show", id=package)
    return list(found.get("resources") or [])


def _switch(site: Site, organisation: str, release: _Release, places: Mapping[str, Mapping[str, Any]]) -> Status:
    """Metadata and links of the dataset, all in one call; nothing where they are so already."""

    done: Status = "unchanged"

    def step() -> Status:
        nonlocal done
        current = site.find("package_show", release.name)
        wished = _dataset(organisation, release, places, current or {})
        if current is None:
            done = "created"
            site.call("package_create", **wished)
        elif not _same(current, wished):
            # Unless an attempt created it that seemed to fail.
            done = done if done == "created" else "updated"
            site.call("package_patch", id=current["id"], **wished)
        return done

    return site.patiently(step)


def _dataset(
    organisation: str, release: _Release, places: Mapping[str, Mapping[str, Any]], current: Mapping[str, Any]
) -> dict[str, Any]:
    """The dataset as it is to be; resources that are there keep their ids and whatever else the site knows of them."""
    known = {item.get("name"): item for item in current.get("resources") or []}
    mirrored = {f"resource_{key}": release.metadata[key] for key in _MIRRORED if key in release.metadata}
    resources = []
    for file in release.files:
        title = release.titles.get(file.path.name, file.path.name)
        resources.append(
            {
                **known.get(title, {}),
                "name": title,
                "description": file.path.name,
                "url": places[file.path.name]["url"],
                "format": file.form,
                "size": file.size,
                "hash": file.hash,
                **mirrored,
            }
        )
    return {
        **release.metadata,
        "owner_org": organisation,
        "version": release.version,
        "state": "active",
        "private": False,
        "resources": resources,
    }


def _same(current: Mapping[str, Any], wished: Mapping[str, Any]) -> bool:
    """Whether the site shows what is wished. What its schema does not keep cannot tell; the version can."""
    shown = dict(current)
    if "tags" in shown:
        shown["tag_string"] = sorted(str(tag["name"]) for tag in shown["tags"])
        wished = {**wished, "tag_string": sorted(tag.strip() for tag in wished["tag_string"].split(","))}
    here, there = wished["resources"], shown.get("resources") or []
    if len(here) != len(there) or not all(_alike(old, new) for old, new in zip(there, here, strict=True)):
        return False
    rest = {key: value for key, value in wished.items() if key != "resources"}
    return _alike(shown, rest) and shown.get("version") == wished["version"]


def _alike(shown: Mapping[str, Any], wished: Mapping[str, Any]) -> bool:
    return all(_plain(shown[key]) == _plain(value) for key, value in wished.items() if key in shown)


def _plain(value: Any) -> Any:
    """A value regardless of the order of a choice of several, of 12 or "12", and of a list kept as JSON."""
    if isinstance(value, str) and value.startswith("["):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, list):
        return sorted(map(str, value))
    return str(value).strip()


def _clear(site: Site, store: str, kept: set[str]) -> None:
    """Delete stored files that no dataset links to; what cannot be deleted now is by the next push."""
    with contextlib.suppress(CkanFailure):
        for found in _resources(site, store):
            if str(found["id"]) not in kept:
                site.call("resource_delete", id=found["id"])


def take_down(site: Site, name: str, why: str) -> tuple[Status, str | None]:
    """Withdraw a dataset at the site; (what became of it, the version it had). Raises :class:`CkanFailure`."""
    current = site.show("package_show", name)
    if current is None:
        raise Refused(f"{site.url} has no dataset {name!r}; there is nothing to withdraw.", 404)
    version = str(current.get("version") or "")
    status: Status = "unchanged"
    if not version.startswith(_WITHDRAWN):
        day = datetime.now(ZoneInfo(TIMEZONE)).date()
        thai_day = f"{day.day}/{day.month}/{day.year + 543}"
        notes = f"ถอนการเผยแพร่เมื่อ {thai_day}: {why}\n\nWithdrawn on {day}: {why}\n\n{current.get('notes') or ''}"
        site.patiently(
            lambda: site.call(
                "package_patch",
                id=current["id"],
                title=f"[ถอนการเผยแพร่] {current['title']}",
                notes=notes,
                version=_WITHDRAWN + version,
                resources=[],
            )
        )
        status = "withdrawn"
    # The page is cleared first: links that lead nowhere are worse than files that nobody finds.
    store = site.show("package_show", f"{name}-files")
    if store is not None:
        for found in store.get("resources") or []:
            _delete(site, str(found["id"]))
    return status, version.removeprefix(_WITHDRAWN) or None


def _delete(site: Site, resource: str) -> None:
    """Delete a stored file; gone already, by an attempt that seemed to fail, is as good."""
    try:
        site.patiently(lambda: site.call("resource_delete", id=resource))
    except Refused as refused:
        if refused.status != 404:
            raise
