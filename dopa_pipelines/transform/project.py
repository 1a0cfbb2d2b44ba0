"""The dbt project as the platform uses it.

dbt takes seconds to start, so the manifest is kept under the state folder until a file of the project changes, and models are
built inside this process, one invocation a model, with the manifest loaded once.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from dopa_pipelines.errors import UserError
from dopa_pipelines.settings import Settings
from dopa_pipelines.warehouse import Role, Warehouse

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

# dbt reads its profile even where it does not connect; these stand in for a login then.
_NO_LOGIN = {
    "DOPA_DBT_HOST": "localhost",
    "DOPA_DBT_PORT": "5432",
    "DOPA_DBT_USER": "nobody",
    "DOPA_DBT_PASSWORD": "none",
    "DOPA_DBT_DBNAME": "warehouse",
}
BUILD_THREADS = 4
_BUILT = ("model", "seed", "snapshot")
_PASSED = ("success", "pass", "no-op")


@dataclass(frozen=True)
class Test:
    """A data test. ``models``: unique ids of the models it reads; ``blocking``: whether its failure holds back what descends.

    ``dimension``: that of the national standard. ``sort``: the generic test's name, such as ``not_null``; None of a test that is
    a query of its own.
    """

    unique_id: str
    name: str
    description: str
    blocking: bool
    models: tuple[str, ...]
    dimension: str | None = None
    sort: str | None = None
    column: str | None = None


@dataclass(frozen=True)
class Model:
    """A model as the manifest has it; seeds and snapshots are built, tested and recorded alike, and are models here.

    ``materialized``: ``seed`` and ``snapshot`` for these; ``file_fields``: of a seed, the names in the first line of its file;
    ``snapshot``: of a snapshot, what its own columns are made of (``macros/lineage.sql`` records the same).
    """

    unique_id: str
    name: str
    schema: str
    description: str
    path: str
    checksum: str
    materialized: str
    columns: dict[str, Any]
    meta: dict[str, Any]
    tags: tuple[str, ...]
    inputs: tuple[str, ...]
    """``schema.table`` of every model and source it reads."""
    tests: tuple[Test, ...] = ()
    file_fields: tuple[str, ...] = ()
    snapshot: dict[str, Any] | None = None

    @property
    def is_seed(self) -> bool:
        """Whether a file of the project is all that it is made of: it has no SQL."""
        return self.materialized == "seed"

    @property
    def target(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class NodeResult:
    """What became of one model or test of a build. ``failures`` counts the rows a test found."""

    unique_id: str
    passed: bool
    status: str
    message: str | None
    failures: int | None
    seconds: float


@dataclass
class Project:
    """dbt on the settings' project. With a warehouse it can build; without, it can only tell what there is.

    Close it (or use it as a context manager): while it builds, it holds dbt's turn.
    """

    settings: Settings
    warehouse: Warehouse | None = None
    _keeper: psycopg.Connection[Any] | None = field(default=None, init=False, repr=False)
    _turn_name: str = field(default="", init=False, repr=False)
    _loaded: Manifest | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    @property
    def folder(self) -> Path:
        return self.settings.root / "dbt_project"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest as JSON has it, parsed anew only where a file of the project changed."""
        target = self.settings.dbt_target_path
        kept, mark = target / "manifest.json", target / "manifest.fingerprint"
        fingerprint = self._fingerprint()
        target.mkdir(parents=True, exist_ok=True)
        # dbt writes it in place: whoever comes at the same moment would read half of it.
        with (target / "manifest.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists() or not mark.exists() or mark.read_text() != fingerprint:
                mark.unlink(missing_ok=True)
                self._parse()
                mark.write_text(fingerprint)
            content: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return content

    @cached_property
    def models(self) -> list[Model]:
        """The models, seeds and snapshots in an order in which each stands after what it reads."""
        nodes: Mapping[str, Any] = self.manifest["nodes"]
        order: dict[str, None] = {}

        def add(unique_id: str) -> None:
            if unique_id not in order and unique_id in nodes and nodes[unique_id]["resource_type"] in _BUILT:
                for parent in nodes[unique_id]["depends_on"].get("nodes", ()):
                    add(parent)
                order[unique_id] = None

        for unique_id in sorted(nodes):
            add(unique_id)
        place = {unique_id: number for number, unique_id in enumerate(order)}
        tests: dict[str, list[Test]] = {unique_id: [] for unique_id in order}
        for unique_id, node in sorted(nodes.items()):
            read = [parent for parent in node["depends_on"].get("nodes", ()) if parent in place]
            if node["resource_type"] == "test" and read:
                # A test that reads several models runs with the last of them to be built.
                tests[max(read, key=place.__getitem__)].append(_test(unique_id, node, read))
        return [
            _model(unique_id, nodes[unique_id], self.manifest, tests[unique_id], self._fields(nodes[unique_id]))
            for unique_id in order
        ]

    def _fields(self, node: Mapping[str, Any]) -> tuple[str, ...]:
        if node["resource_type"] != "seed":
            return ()
        with (self.folder / node["original_file_path"]).open(encoding="utf-8-sig", newline="") as file:
            return tuple(next(csv.reader(file, delimiter=node["config"].get("delimiter") or ","), ()))

    def build(
        self,
        models: Sequence[Model],
        *,
        run_id: str,
        parent_run_id: str | None = None,
        started: Callable[[str], None] | None = None,
    ) -> dict[str, NodeResult]:
        """Build models with their tests in one invocation inside this process; results by unique id.

        What descends from a model that failed, or from one of its blocking tests, is skipped and has no result. ``started`` is
        told the unique id of each node that begins. Raises UserError where dbt could not even begin.
        """
        run = {"DOPA_RUN_ID": run_id} | ({"DOPA_PARENT_RUN_ID": parent_run_id} if parent_run_id else {})
        from dbt.cli.main import dbtRunner

        def tell(event: Any) -> None:
            if started and event.info.name == "NodeStart":
                started(str(event.data.node_info.unique_id))

        names = [name for model in models for name in (model.name, *(test.name for test in model.tests))]
        chosen = ["--select", *names, "--indirect-selection", "empty", "--exclude-resource-type", "unit_test"]
        threads = str(min(len(models), BUILD_THREADS))
        manifest = self._load()
        with _variables(self.environment() | self._turn() | run):
            outcome = dbtRunner(manifest=manifest, callbacks=[tell]).invoke(
                ["build", *chosen, "--threads", threads, *self._options()]
            )
        if outcome.exception is not None and not outcome.result:
            raise UserError(f"dbt could not build {', '.join(model.target for model in models)}: {outcome.exception}")
        results = [_result(item) for item in getattr(outcome.result, "results", [])]
        return {item.unique_id: item for item in results if item.status != "skipped"}

    def _options(self) -> list[str]:
        return [
            "--project-dir", str(self.folder), "--profiles-dir", str(self.folder), "--target-path",
            str(self.settings.dbt_target_path), "--log-path", str(self.settings.dbt_target_path), "--quiet",
            "--no-use-colors", "--no-write-json", "--log-level-file", "none",
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """What dbt needs to find its login; without a warehouse enough to parse."""
        login = self.warehouse.dbt_environment() if self.warehouse else {**_NO_LOGIN, **_given(_NO_LOGIN)}
        return login | {
            "DBT_TARGET_PATH": str(self.settings.dbt_target_path),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        }

    def _load(self) -> Manifest:
        if self._loaded is None:
            self._loaded = self._parse()
        return self._loaded

    def _parse(self) -> Manifest:
        from dbt.cli.main import dbtRunner
        from dbt.contracts.graph.manifest import Manifest

        self.settings.dbt_target_path.mkdir(parents=True, exist_ok=True)
        options = [option for option in self._options() if option != "--no-write-json"]
        with _variables(self.environment()):
            outcome = dbtRunner().invoke(["parse", *options])
        if not outcome.success or not isinstance(outcome.result, Manifest):
            raise UserError(f"The dbt project cannot be parsed: {outcome.exception}")
        return outcome.result

    def _turn(self) -> dict[str, str]:
        """Hold dbt's turn for as long as this project is open, by a connection that ends with the process."""
        if self.warehouse is None:
            return {}
        if self._keeper is None:
            self._turn_name = f"dopa-{uuid.uuid4().hex[:12]}"
            self._keeper = self.warehouse.connect(Role.TRANSFORMER, autocommit=True)
            self._keeper.execute("select set_config('application_name', %s, false)", (f"dbt {self._turn_name}",))
        return {"DOPA_DBT_TURN": self._turn_name}

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".sql", ".yml", ".csv", ".md") and path.is_file():
                found = path.stat()
                digest.update(f"{path.relative_to(self.folder)} {found.st_mtime_ns} {found.st_size}\n".encode())
        return digest.hexdigest()


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables while the block runs: dbt inside this process reads its profile from them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _given(names: Iterable[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _test(unique_id: str, node: Mapping[str, Any], models: list[str]) -> Test:
    config = node.get("config") or {}
    return Test(
        unique_id=unique_id,
        name=node["name"],
        description=node.get("description") or "",
        blocking=str(config.get("severity") or "error").lower() == "error",
        models=tuple(models),
        dimension=(config.get("meta") or {}).get("national_dimension"),
        sort=(node.get("test_metadata") or {}).get("name"),
        column=node.get("column_name"),
    )


def _model(
    unique_id: str, node: Mapping[str, Any], manifest: Mapping[str, Any], tests: list[Test], file_fields: tuple[str, ...]
) -> Model:
    inputs = []
    for parent in node["depends_on"].get("nodes", ()):
        found = manifest["nodes"].get(parent) or manifest["sources"].get(parent)
        if found:
            inputs.append(f"{found['schema']}.{found.get('identifier') or found.get('alias') or found['name']}")
    return Model(
        unique_id=unique_id,
        name=node["alias"],
        schema=node["schema"],
        description=node.get("description") or "",
        path=node["original_file_path"],
        checksum=node["checksum"]["checksum"],
        materialized=node["config"]["materialized"],
        columns=node.get("columns") or {},
        meta=(node.get("config") or {}).get("meta") or node.get("meta") or {},
        tags=tuple(node.get("tags") or ()),
        inputs=tuple(dict.fromkeys(inputs)),
        tests=tuple(tests),
        file_fields=file_fields,
        snapshot=_snapshot(node["config"]) if node["resource_type"] == "snapshot" else None,
    )


def _snapshot(config: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: config.get(name) for name in ("strategy", "unique_key", "updated_at", "check_cols", "hard_deletes")}
    return told | {"columns": config.get("snapshot_meta_column_names") or {}}


def _result(item: Any) -> NodeResult:
    status = str(item.status)
    return NodeResult(
        unique_id=item.node.unique_id,
        passed=status in _PASSED,
        status=status,
        message=item.message,
        failures=item.failures,
        seconds=float(item.execution_time),
    )
