"""OpenLineage events of other systems, taken into the one graph.

Belongs here: reading, checking and keeping them, and what they say of datasets and columns. Does not belong here: our own events
(``openlineage``), which are made of records that the database vouches for; an imported event is only what its producer says.

An event is kept as it came, once: the same again changes nothing. All of a file are kept or none. What a run read and wrote is
gathered over its events; the latest run of each job that did not fail tells the edges, as the latest write does of our tables.
Names that our warehouse owns are joined to ours (``naming``); imported events are not forwarded.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.types.json import Jsonb

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.columngraph import TURN as COLUMNS_TURN
from dopa_pipelines.lineage.columngraph import record_imported
from dopa_pipelines.lineage.model import ColumnEdge
from dopa_pipelines.lineage.naming import DatasetName, Identity, without_credentials
from dopa_pipelines.lineage.store import identity

FETCH_SECONDS = 30.0
"""How long a URL may take, all in all."""

MAX_BYTES = 256 << 20
"""The largest file or answer that is read."""

_STATES = ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
_PARTS = ("inputs", "outputs")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)")
# The turn of those who tell our own events.
_OF_US = 0x646F7061_6C696E65
_INDIRECT = frozenset({"JOIN", "FILTER", "GROUP_BY", "SORT", "WINDOW", "CONDITIONAL"})
_DIRECT = frozenset({"IDENTITY", "TRANSFORMATION", "AGGREGATION"})


@dataclass(frozen=True)
class Imported:
    """What an import did. ``events`` were read, ``new`` of them kept, the rest were there already; they name ``datasets``."""

    source: str
    events: int
    new: int
    datasets: int
    edges: int
    column_edges: int
    producers: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**self.__dict__, "producers": list(self.producers)}


def read_events(source: str) -> list[dict[str, Any]]:
    """The events of a file or an http(s) URL: one JSON object, an array of them, or one a line.

    Raises UserError: what is wrong, with the number of the event.
    """
    shown = without_credentials(source)
    text = _fetched(source, shown) if urlsplit(source).scheme in ("http", "https") else _read(source)
    found = _parsed(text, shown)
    if not found:
        raise UserError(f"{shown}: holds no event; give a file with OpenLineage events (JSON, an array, or one a line)")
    for number, event in enumerate(found, start=1):
        try:
            problem = next(_problems(event), None)
            json.dumps(event)
        except RecursionError:
            problem = "is nested too deeply"
        if problem:
            raise UserError(f"{shown}: event {number}: {problem}; nothing was imported")
    return found


def import_events(connection: psycopg.Connection[Any], events: Sequence[Mapping[str, Any]], source: str) -> Imported:
    """Keep events that :func:`read_events` found right, in one transaction; ``source`` is only told again."""
    named = identity(connection)
    new, datasets, edges, column_edges = 0, set[DatasetName](), set[tuple[DatasetName, DatasetName]](), 0
    with connection.transaction():
        # The turn of who records columns, and of who tells our own events (ids are given out in the order of commits), in the
        # order in which these take them.
        connection.execute("select pg_advisory_xact_lock(%s)", (COLUMNS_TURN,))
        connection.execute("select pg_advisory_xact_lock(%s)", (_OF_US,))
        for event in events:
            read, written = _datasets(event, named)
            columns = imported_edges(event, named)
            datasets |= {*read, *written}
            edges |= {(given, made) for given in read for made in written if given != made}
            column_edges += len(columns)
            row = connection.execute(
                "select lineage.import_event(%s, %s, %s, %s, %s)",
                (
                    Jsonb(event),
                    hashlib.sha256(json.dumps(event, sort_keys=True, ensure_ascii=False).encode()).hexdigest(),
                    _job(event),
                    _run(event),
                    Jsonb(
                        [
                            {"direction": direction, "namespace": name.namespace, "name": name.name}
                            for direction, names in (("input", read), ("output", written))
                            for name in names
                        ]
                    ),
                ),
            ).fetchone()
            if row and row[0] is not None:
                new += 1
                if event.get("eventType", "COMPLETE") == "COMPLETE":
                    told, fields = _without_newer(connection, int(row[0]), named, columns, _fields(event, named))
                    record_imported(connection, int(row[0]), told, fields)
    producers = tuple(sorted({str(event["producer"]) for event in events}))
    return Imported(without_credentials(source), len(events), new, len(datasets), len(edges), column_edges, producers)


_NEWER = """
select later.event
from lineage.event this
join lineage.imported_dataset i on i.direction = 'output' and (i.name, i.namespace) in (
    select * from unnest(%s::text[], %s::text[])
)
join lineage.event later on later.id = i.event_id and later.event_time > this.event_time
where this.id = %s and coalesce(later.event ->> 'eventType', 'COMPLETE') = 'COMPLETE'
"""


def _without_newer(
    connection: psycopg.Connection[Any],
    event: int,
    named: Identity,
    edges: Sequence[ColumnEdge],
    fields: Mapping[DatasetName, Sequence[str]],
) -> tuple[list[ColumnEdge], dict[DatasetName, Sequence[str]]]:
    """What an event tells of columns but for datasets of which an event of a later time has told already: that one stays in
    force, in whatever order they come."""
    told = list(dict.fromkeys([*fields, *(edge.target for edge in edges)]))
    known: set[DatasetName] = set()
    if told:
        rows = connection.execute(_NEWER, ([name.name for name in told], [name.namespace for name in told], event))
        for (later,) in rows.fetchall():
            known |= set(_fields(later, named)) | {edge.target for edge in imported_edges(later, named)}
    return (
        [edge for edge in edges if edge.target not in known],
        {name: columns for name, columns in fields.items() if name not in known},
    )


def _fields(event: Mapping[str, Any], named: Identity) -> dict[DatasetName, list[str]]:
    """The columns of the datasets whose schema an event tells."""
    return {
        named.canonical(target["namespace"], target["name"]): [str(item["name"]) for item in schema["fields"]]
        for target in _told_of(event)
        if (schema := (target.get("facets") or {}).get("schema")) and schema.get("fields")
    }


def imported_edges(event: Mapping[str, Any], named: Identity) -> list[ColumnEdge]:
    """The edges between columns that an event's columnLineage facets tell, our own tables under our own names.

    Without transformations an edge is a TRANSFORMATION: that much is said by telling it.
    """
    found: dict[ColumnEdge, None] = {}
    for target in _told_of(event):
        facet = (target.get("facets") or {}).get("columnLineage") or {}
        name = named.canonical(target["namespace"], target["name"])
        columns: list[tuple[str | None, Mapping[str, Any]]] = [
            (column, given) for column, fields in (facet.get("fields") or {}).items() for given in fields.get("inputFields") or ()
        ]
        columns += [(None, given) for given in facet.get("dataset") or ()]
        for column, given in columns:
            source = named.canonical(given["namespace"], given["name"])
            ways = given.get("transformations") or [{}]
            for way in ways:
                indirect = way.get("type") == "INDIRECT"
                told = str(way.get("subtype") or "").upper()
                # Others may say any word; what it means to values and rows is said by the type.
                if indirect:
                    subtype = told if told in _INDIRECT else "CONDITIONAL" if told else "FILTER"
                else:
                    subtype = told if told in _DIRECT else "TRANSFORMATION"
                found[ColumnEdge(source, given["field"], name, column, subtype, bool(way.get("masking")))] = None
    return list(found)


_LATEST = """
with latest as (
    select distinct on (i.job) i.job, i.run
    from lineage.imported_dataset i
    join lineage.event e on e.id = i.event_id
    where e.event_time <= coalesce(%(at)s::timestamptz, 'infinity')
      and not exists (
        select from lineage.event failed
        where failed.imported is not null and failed.run_id = i.run and failed.event ->> 'eventType' in ('FAIL', 'ABORT')
    )
    order by i.job, e.event_time desc, i.id desc
)
"""


def imported_graph(connection: psycopg.Connection[Any], *, at: datetime | None = None) -> list[tuple[DatasetName, DatasetName]]:
    """(source, target) of every dataset that the latest run of a foreign job wrote, as of ``at`` (default now)."""
    rows = connection.execute(
        _LATEST + "select distinct given.namespace, given.name, made.namespace, made.name"
        " from latest join lineage.imported_dataset given on given.run = latest.run and given.direction = 'input'"
        " join lineage.imported_dataset made on made.run = latest.run and made.direction = 'output'"
        " where (given.namespace, given.name) <> (made.namespace, made.name)",
        {"at": at},
    )
    return [(DatasetName(row[0], row[1]), DatasetName(row[2], row[3])) for row in _plain(rows)]


def _plain(rows: psycopg.Cursor[Any]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield tuple(row.values()) if isinstance(row, dict) else row


def _datasets(event: Mapping[str, Any], named: Identity) -> tuple[list[DatasetName], list[DatasetName]]:
    """What an event says was read and written; a column that was made of another dataset's was read."""
    read = dict.fromkeys(named.canonical(item["namespace"], item["name"]) for item in event.get("inputs") or ())
    written = dict.fromkeys(named.canonical(item["namespace"], item["name"]) for item in event.get("outputs") or ())
    if "dataset" in event:
        written[named.canonical(event["dataset"]["namespace"], event["dataset"]["name"])] = None
    for edge in imported_edges(event, named):
        if edge.source != edge.target:
            read[edge.source] = None
    return list(read), list(written)


def _told_of(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(event.get("outputs") or ()), *([event["dataset"]] if "dataset" in event else [])]


def _job(event: Mapping[str, Any]) -> str:
    """What a later event replaces: a job, or a dataset where no job is named."""
    of = event.get("job") or event["dataset"]
    return f"{'job' if 'job' in event else 'dataset'} {of['namespace']} {of['name']}"


def _run(event: Mapping[str, Any]) -> str:
    """What events are gathered over: a run, or the event itself where there is none."""
    if "run" in event:
        return str(event["run"]["runId"])
    return f"{_job(event)} {event['eventTime']}"


# Reading


def _read(source: str) -> str:
    path = Path(source)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{source}: is larger than {MAX_BYTES >> 20} MB; import it in parts")
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: is not UTF-8 text; give a file with OpenLineage events") from error
    except OSError as error:
        raise UserError(f"{source}: can't be read ({error.strerror}); give a file or an http(s) URL") from error


def _fetched(source: str, shown: str) -> str:
    import time

    import httpx

    until = time.monotonic() + FETCH_SECONDS
    content = bytearray()
    try:
        with httpx.stream("GET", source, timeout=10.0, follow_redirects=True) as answer:
            if not answer.is_success:
                raise UserError(f"{shown}: answered {answer.status_code}; nothing was imported")
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > MAX_BYTES:
                    raise UserError(f"{shown}: sends more than {MAX_BYTES >> 20} MB; import it in parts")
                if time.monotonic() > until:
                    raise UserError(f"{shown}: did not send all within {FETCH_SECONDS:g} s; nothing was imported")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: sends no UTF-8 text; give the address of OpenLineage events") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(f"{shown}: can't be fetched ({type(error).__name__}); nothing was imported") from error


def _parsed(text: str, shown: str) -> list[dict[str, Any]]:
    try:
        whole = json.loads(text, parse_constant=_no_constant)
        return whole if isinstance(whole, list) else [whole]
    except json.JSONDecodeError as error:
        if len(lines := [(place, line) for place, line in enumerate(text.splitlines(), start=1) if line.strip()]) < 2:
            where = f"line {error.lineno}, column {error.colno}"
            raise UserError(f"{shown}: is no JSON ({error.msg}, {where}); nothing was imported") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown}: is no JSON ({error}); nothing was imported") from error
    found = []
    for number, (place, line) in enumerate(lines, start=1):
        try:
            found.append(json.loads(line, parse_constant=_no_constant))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{shown}: event {number} (line {place}) is no JSON ({error}); nothing was imported") from error
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


# Checking: what we rely on, and what the specification demands of every event.


def _problems(event: Any) -> Iterator[str]:
    if not isinstance(event, dict):
        yield "is no JSON object"
        return
    yield from _texts(event)
    yield from _time(event)
    for key in ("producer", "schemaURL"):
        yield from _text(event, key, key)
        if not urlsplit(event[key]).scheme:
            yield f"{key} is {_shown(event[key])}, which is no URI"
    kinds = [key for key in ("run", "job", "dataset") if key in event]
    if not kinds:
        yield "is neither a run, a job nor a dataset event: it lacks run, job and dataset"
        return
    for key in ("run", "job", "dataset"):
        if key in event and not isinstance(event[key], dict):
            yield f"{key} is no object"
            return
    if "run" in event:
        if "job" not in event:
            yield "lacks job, which tells what ran"
            return
        yield from _text(event["run"], "runId", "run.runId")
        try:
            uuid.UUID(event["run"]["runId"])
        except ValueError:
            yield f"run.runId is {_shown(event['run']['runId'])}, which is no UUID"
        if event.get("eventType") is not None and event["eventType"] not in _STATES:
            yield f"eventType is {_shown(event['eventType'])}; it must be one of {', '.join(_STATES)}"
        yield from _facets(event["run"], "run")
    if "job" in event:
        yield from _named(event["job"], "job")
    if "dataset" in event:
        yield from _named(event["dataset"], "dataset")
        yield from _columns(event["dataset"], "dataset")
    for part in _PARTS:
        given = event.get(part)
        if given is None:
            continue
        if not isinstance(given, list):
            yield f"{part} is no array"
            return
        for place, item in enumerate(given, start=1):
            where = f"{part}[{place}]"
            if not isinstance(item, dict):
                yield f"{where} is no object"
                return
            yield from _named(item, where)
            yield from _columns(item, where)


def _texts(event: Any) -> Iterator[str]:
    """What JSON allows and the warehouse cannot hold."""
    rest = [event]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
                yield f"holds {json.dumps(value)[:60]}, with a character that no text of the warehouse can hold"
        elif isinstance(value, float):
            if value in (float("inf"), float("-inf")):
                yield "holds a number that is too large"
        elif isinstance(value, dict):
            rest += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            rest += value


def _time(event: Mapping[str, Any]) -> Iterator[str]:
    yield from _text(event, "eventTime", "eventTime")
    text = event["eventTime"]
    example = "it must be a time with its zone, such as 2026-01-31T08:00:00+07:00"
    if not _TIME.fullmatch(text):
        yield f"eventTime is {_shown(text)}; {example}"
    try:
        zone = datetime.fromisoformat(text).utcoffset()
    except ValueError:
        yield f"eventTime is {_shown(text)}, which is no time; {example}"
        return
    if zone is None or abs(zone) >= timedelta(hours=16):
        yield f"eventTime is {_shown(text)}; {example}"


def _text(holder: Mapping[str, Any], key: str, where: str) -> Iterator[str]:
    if key not in holder or holder[key] is None:
        yield f"lacks {where}"
    elif not isinstance(holder[key], str) or not holder[key].strip():
        yield f"{where} is {_shown(holder[key])}; it must be text"


def _named(item: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _text(item, "namespace", f"{where}.namespace")
    yield from _text(item, "name", f"{where}.name")
    yield from _facets(item, where)


def _facets(item: Mapping[str, Any], where: str) -> Iterator[str]:
    facets = item.get("facets")
    if facets is None:
        return
    if not isinstance(facets, dict):
        yield f"{where}.facets is no object"
        return
    for name, facet in facets.items():
        if not isinstance(facet, dict):
            yield f"{where}.facets.{name} is no object"


def _columns(item: Mapping[str, Any], where: str) -> Iterator[str]:
    facets = item.get("facets") or {}
    fields = (facets.get("schema") or {}).get("fields")
    if fields is not None:
        if not isinstance(fields, list):
            yield f"{where}.facets.schema.fields is no array"
            return
        for place, column in enumerate(fields, start=1):
            if not isinstance(column, dict):
                yield f"{where}.facets.schema.fields[{place}] is no object"
                return
            yield from _text(column, "name", f"{where}.facets.schema.fields[{place}].name")
    yield from _column_lineage(item, where)


def _column_lineage(item: Mapping[str, Any], where: str) -> Iterator[str]:
    facet = (item.get("facets") or {}).get("columnLineage")
    if facet is None or facet.get("_deleted"):
        return
    where = f"{where}.facets.columnLineage"
    fields = facet.get("fields")
    if not isinstance(fields, dict):
        yield f"{where} lacks fields"
        return
    for column, made in fields.items():
        if not isinstance(made, dict) or not isinstance(made.get("inputFields"), list):
            yield f"{where}.fields.{column} lacks inputFields"
            return
        yield from _input_fields(made["inputFields"], f"{where}.fields.{column}.inputFields")
    if facet.get("dataset") is not None:
        if not isinstance(facet["dataset"], list):
            yield f"{where}.dataset is no array"
            return
        yield from _input_fields(facet["dataset"], f"{where}.dataset")


def _input_fields(given: Sequence[Any], where: str) -> Iterator[str]:
    for place, item in enumerate(given, start=1):
        if not isinstance(item, dict):
            yield f"{where}[{place}] is no object"
            return
        for key in ("namespace", "name", "field"):
            yield from _text(item, key, f"{where}[{place}].{key}")
        ways = item.get("transformations")
        if ways is not None and not (isinstance(ways, list) and all(isinstance(way, dict) for way in ways)):
            yield f"{where}[{place}].transformations is no array of objects"
            return
        for way in ways or ():
            if way.get("type") not in ("DIRECT", "INDIRECT"):
                yield f"{where}[{place}]: type of a transformation is {_shown(way.get('type'))}; it must be DIRECT or INDIRECT"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
