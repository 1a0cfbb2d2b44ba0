"""The audit bundle: everything that was recorded of how a dataset or release came to be, readable without this software.

Belongs here: gathering the evidence and packing it. Does not belong here: whether it is true (``lineage.verify`` says that), and
how lineage is walked (``lineage.trace``). No personal value is in a bundle: rejected rows are counted, never shown.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage import columntrace, drawing
from dopa_pipelines.lineage.classes import Class, classes_of
from dopa_pipelines.lineage.model import Node
from dopa_pipelines.lineage.naming import DatasetName
from dopa_pipelines.lineage.store import graph, identity
from dopa_pipelines.lineage.trace import BANGKOK, find

Row = dict[str, Any]

_CHAIN = """
with recursive chain (id) as (
    select %(start)s::bigint
    union
    select before.id
    from chain
    join lineage.write w on w.id = chain.id
    cross join lateral (
        select (i.input ->> 'write')::bigint as id
        from jsonb_array_elements(w.inputs) as i (input)
        where jsonb_typeof(i.input -> 'write') = 'number'
        union all
        -- Behind a view: the tables that it read at that moment.
        select (r.read ->> 'write')::bigint
        from jsonb_array_elements(w.inputs) as i (input)
        cross join lateral jsonb_array_elements(coalesce(i.input -> 'reads', '[]')) as r (read)
        where jsonb_typeof(r.read -> 'write') = 'number'
        union all
        -- A table that is not made anew each time holds rows of its earlier writes.
        select max(earlier.id)
        from lineage.write earlier
        where earlier.target = w.target and earlier.id < w.id and earlier.environment = w.environment
          and (w.kind in ('load', 'migration', 'rebase') or w.detail ->> 'materialized' in ('incremental', 'snapshot'))
    ) before
    where before.id is not null
)
select w.id, w.kind, w.target, w.written_at, w.written_by, w.run_id, w.parent_run_id, w.version, w.rows_in, w.rows_out,
    w.transaction_id::text as transaction_id, w.cluster, w.code ->> 'checksum' as code_checksum,
    w.code ->> 'git_commit' as git_commit, w.code -> 'git_changed' as git_changed,
    w.code ->> 'path' as path, w.code ->> 'compiled' as compiled, w.inputs, w.detail, w.detail ->> 'actor' as actor
from lineage.write w
where w.id in (select id from chain)
   -- What became of these tables since: restored, moved, changed in form.
   or w.kind in ('rebase', 'migration') and w.target in (
       select c.target from lineage.write c where c.id in (select id from chain)
   )
order by w.id
"""

_DELIVERIES = """
select d.id, d.dataset, d.file, d.sha256, d.bytes, d.received_at, d.contract_version, d.contract_checksum, d.as_of, d.rows_read,
    d.rows_loaded, d.rows_quarantined, d.rows_held, d.in_force, d.reasons, d.run_id, d.replayed, d.requested_by, d.why
from ops.delivery d
where d.id = any(%s)
order by d.id
"""

_EVENTS = """
select e.id, lineage.whole_event(e.event) as event
from lineage.event e
where e.write_id = any(%(writes)s) or e.work_id in (
    -- Checks, and attempts that came to nothing.
    select told.id
    from lineage.work begun
    join lineage.work told on told.work = begun.work
    where begun.state = 'START' and begun.target = any(%(targets)s) and begun.run_id = any(%(runs)s)
)
order by e.id
"""
_SEALED = """
select t.subject, t.id, t.write_id, t.told, t.write_told
from lineage.sealable t
where (t.subject = 'event' and t.id = any(%(events)s)) or (t.subject = 'digest' and t.write_id = any(%(writes)s))
order by t.subject desc, t.id
"""
# Seals are over the names of facets, and a name is made of its facet.
_FACETS = """
select f.sha256, f.facet::text as told
from lineage.facet f
where f.sha256 in (
    select n.name #>> '{}'
    from lineage.event e
    cross join lateral jsonb_path_query(e.event, '$.*.facets.*._facet') as n (name)
    where e.id = any(%(events)s)
)
order by f.sha256
"""
_DESCRIBING = (
    "release.json", "metadata.json", "data_dictionary.csv", "datapackage.json", "dcat.jsonld", "changes.json", "checksums.sha256",
    "ERRATUM.json", "WITHDRAWN.json",
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What is known of one subject. ``last``: the write that made it what it is; ``writes``: all, in the order in which they were
    made. ``findings`` and ``notes`` are what a verification said.
    """

    subject: str
    last: Row
    made_at: datetime
    warehouse: str
    writes: list[Row]
    deliveries: list[Row]
    contracts: list[Row]
    sealed: list[Row]
    checks: list[Row]
    seals: list[Row]
    facets: list[Row]
    columns: list[Row]
    picture: str
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    released: dict[str, bytes] = field(default_factory=dict)
    """What lies beside the data of a release, by name: manifest, dictionary, metadata, checksums."""
    classes: Mapping[str, Mapping[str, Class]] = field(default_factory=dict)
    """What the columns of the subject and of all that it is made of are by their lineage, as it is derived now."""

    @property
    def manifest(self) -> Row:
        """What a release says of itself: approval, exceptions of the gate, disclosure control; empty where it is none."""
        return dict(json.loads(self.released.get("release.json", b"{}")))

    @property
    def own_classes(self) -> Mapping[str, Class]:
        """What the columns of the subject are."""
        return self.classes.get(self.last["target"], {})

    @property
    def code(self) -> dict[str, Row]:
        """Each compiled statement once, by its checksum, with the targets that it made."""
        found: dict[str, Row] = {}
        for write in self.writes:
            if write["compiled"]:
                entry = found.setdefault(write["code_checksum"], {"sql": write["compiled"], "targets": []})
                if write["target"] not in entry["targets"]:
                    entry["targets"].append(write["target"])
        return found


def gather(connection: psycopg.Connection[Any], subject: str, releases: Path) -> Evidence:
    """The evidence of a dataset, a publication or one release of it (``hotels_licensed@2026-11-25-1a2b3c4d``).

    A release is told with contracts, code and columns of its day. ``releases``: the folder of all releases. Raises UserError
    where nothing of that name was ever written.
    """
    start, node, label = _start(connection, subject)
    with connection.cursor(row_factory=dict_row) as cursor:
        writes = cursor.execute(_CHAIN, {"start": start}).fetchall()
        numbers = [write["detail"]["delivery"] for write in writes if write["detail"] and write["detail"].get("delivery")]
        deliveries = cursor.execute(_DELIVERIES, (numbers,)).fetchall()
        checksums = sorted({delivery["contract_checksum"] for delivery in deliveries if delivery["contract_checksum"]})
        contracts = cursor.execute(
            "select checksum, dataset, version, document from ops.contract where checksum = any(%s) order by dataset, version",
            (checksums,),
        ).fetchall()
        asked: dict[str, Any] = {
            "writes": [write["id"] for write in writes],
            "targets": list({write["target"] for write in writes}),
            "runs": list({write["run_id"] for write in writes if write["run_id"]}),
        }
        events = cursor.execute(_EVENTS, asked).fetchall()
        sealed = cursor.execute(_SEALED, asked | {"events": [event["id"] for event in events]}).fetchall()
        facets = cursor.execute(_FACETS, {"events": [event["id"] for event in events]}).fetchall()
        seals = cursor.execute("select * from lineage.seal order by seq").fetchall()
    last = next(write for write in writes if write["id"] == start)
    picture, columns = _columns(connection, node.dataset, last["written_at"])
    return Evidence(
        subject=label,
        last=last,
        made_at=datetime.now(BANGKOK),
        warehouse="/".join(identity(connection).table("")).rstrip("."),
        writes=writes,
        deliveries=deliveries,
        contracts=contracts,
        sealed=sealed,
        checks=_checks(events),
        seals=seals,
        facets=facets,
        columns=columns,
        picture=picture,
        released=_released(releases, last),
        classes=classes_of(connection, asked["targets"]),
    )


def _start(connection: psycopg.Connection[Any], subject: str) -> tuple[int, Node, str]:
    """The write that made the subject what it is, the dataset, and the subject's name."""
    name, _, version = subject.partition("@")
    node = find(graph(connection), name)
    if not version:
        if node.write is None or node.kind == "feed":
            raise UserError(f"{node.label} is not written here; name a table or a publication that is made of it")
        return node.write.id, node, node.label
    row = connection.execute(
        "select max(id) from lineage.write where target = %s and detail ->> 'version' = %s", (node.target, version)
    ).fetchone()
    if row is None or row[0] is None:
        raise UserError(f"{node.label} has no release {version}; its folder of releases lists them")
    return int(row[0]), node, f"{node.label}@{version}"


def _columns(connection: psycopg.Connection[Any], dataset: DatasetName, at: datetime) -> tuple[str, list[Row]]:
    """The picture of where the columns came from, and their edges, as of a time; neither where that is not known."""
    try:
        walked = columntrace.walk(connection, columntrace.Place(dataset, None), "up", at=at)
    except UserError:
        return "", []
    told = columntrace.as_json(walked)
    rows = [
        {
            "source": edge["from"]["dataset"],
            "source_column": edge["from"]["column"],
            "target": edge["to"]["dataset"],
            "target_column": edge["to"]["column"],
            "type": edge["type"],
            "subtype": edge["subtype"],
            "masking": edge["masking"],
        }
        for edge in (*told["edges"], *told["indirect"])
    ]
    return drawing.as_svg(drawing.picture([walked])), rows


def _released(releases: Path, write: Row) -> dict[str, bytes]:
    folder = (write["detail"] or {}).get("folder") if write["kind"] == "release" else None
    if not folder:
        return {}
    return {path.name: path.read_bytes() for name in _DESCRIBING if (path := releases / folder / name).is_file()}


def _checks(events: Iterable[Row]) -> list[Row]:
    """Results of checks, as the events tell them of their input datasets."""
    found = []
    for event in events:
        told = event["event"]
        for given in told.get("inputs", []):
            facet = given.get("inputFacets", {}).get("dataQualityAssertions") or {}
            for item in facet.get("assertions", []):
                found.append(
                    {
                        "at": told["eventTime"],
                        "dataset": given["name"],
                        "check": item.get("name") or item.get("assertion"),
                        "column": item.get("column"),
                        "passed": item.get("success"),
                        "severity": item.get("severity"),
                    }
                )
    return found


def write_bundle(evidence: Evidence, path: Path) -> list[str]:
    """Pack the evidence into a zip file; returns the names in it. Raises UserError where it cannot be written.

    The file is there whole or not at all.
    """
    content = _content(evidence)
    listed = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items()))
    content["checksums.sha256"] = listed.encode()
    partial = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, data in sorted(content.items()):
                # The time of the bundle, not of each file: the same evidence gives the same bytes but for that.
                info = zipfile.ZipInfo(name, evidence.made_at.timetuple()[:6])
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                bundle.writestr(info, data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror or error}); choose another place with --out") from error
    return sorted(content)


def _content(evidence: Evidence) -> dict[str, bytes]:
    made: dict[str, bytes] = {
        "index.html": report(evidence).encode(),
        "verify.py": (files("dopa_pipelines.governance") / "templates" / "verify_bundle.py.txt").read_bytes(),
        "writes.csv": _csv(
            evidence.writes,
            ("id", "kind", "target", "written_at", "written_by", "actor", "run_id", "parent_run_id", "version", "rows_in",
             "rows_out", "code_checksum", "git_commit", "git_changed", "path", "transaction_id", "cluster", "inputs"),
        ),
        "deliveries.csv": _csv(
            evidence.deliveries,
            ("id", "dataset", "file", "sha256", "bytes", "received_at", "as_of", "contract_version", "contract_checksum",
             "rows_read", "rows_loaded", "rows_quarantined", "rows_held", "in_force", "reasons", "run_id", "replayed",
             "requested_by", "why"),
        ),
        "checks.csv": _csv(evidence.checks, ("at", "dataset", "check", "column", "passed", "severity")),
        "columns.csv": _csv(
            evidence.columns, ("source", "source_column", "target", "target_column", "type", "subtype", "masking")
        ),
        "classes.csv": _csv(
            [
                {
                    "dataset": target, "column": item.column, "classification": item.level, "derived_as": item.what,
                    "pdpa_role": item.role, "path": " → ".join(item.path), "indirect": ", ".join(item.indirect),
                    "problem": item.problem,
                }
                for target, columns in sorted(evidence.classes.items())
                for item in columns.values()
            ],
            ("dataset", "column", "classification", "derived_as", "pdpa_role", "path", "indirect", "problem"),
        ),
        "sealed.jsonl": _lines(evidence.sealed),
        "facets.jsonl": _lines(evidence.facets),
        "chain.jsonl": _lines(evidence.seals),
    }  # fmt: skip
    if evidence.picture:
        made["picture.svg"] = evidence.picture.encode()
    made |= {f"release/{name}": data for name, data in evidence.released.items()}
    for contract in evidence.contracts:
        name = f"contracts/{contract['dataset']}-{contract['version']}-{contract['checksum'][:8]}.odcs.yaml"
        made[name] = contract["document"].encode()
    for checksum, entry in evidence.code.items():
        made[f"code/{entry['targets'][0]}-{checksum[:8]}.sql"] = entry["sql"].encode()
    return made


def report(evidence: Evidence) -> str:
    """The report as one page of HTML in Thai and English, with nothing that has to be fetched."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dopa_pipelines.governance"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"moment": _moment, "number": _number}
    reasons: dict[str, int] = {}
    for delivery in evidence.deliveries:
        if delivery["replayed"]:
            continue  # its rows are counted where they were rejected first
        for code, count in (delivery["reasons"] or {}).items():
            reasons[code] = reasons.get(code, 0) + int(count)
    return environment.get_template("audit.html.j2").render(evidence=evidence, reasons=reasons)


def _moment(value: datetime | str | None) -> str:
    """A time in Bangkok, its year in the Buddhist era beside that of the common one."""
    if value is None:
        return ""
    moment = (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(BANGKOK)
    return f"{moment:%Y-%m-%d %H:%M:%S} (พ.ศ. {moment.year + 543})"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    """CSV that Excel opens with its Thai in order."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return out.getvalue().encode("utf-8-sig")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    # What begins so is a formula to Excel.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _lines(items: Iterable[Any]) -> bytes:
    return "".join(json.dumps(item, ensure_ascii=False, default=str, sort_keys=True) + "\n" for item in items).encode()
