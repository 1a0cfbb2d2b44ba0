"""Walking the graph up to the silos or down to the extracts, and showing the walk.

Belongs here: finding the dataset a person means, the walk, its text and JSON forms. Does not belong here:
reading the graph from the database (``store``). Imports neither OpenLineage nor Dagster, so that ``dopa
trace`` answers at once.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from dopa_pipelines.errors import UserError
from dopa_pipelines.lineage.model import Edge, EdgeKind, Graph, Node, Write
from dopa_pipelines.lineage.naming import DatasetName, is_project_file

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

Direction = Literal["up", "down"]

BANGKOK = ZoneInfo("Asia/Bangkok")


@dataclass(frozen=True, slots=True)
class TraceNode:
    """A dataset at one place of the walk.

    ``via`` is the kind of the edge that led here (None at the root). What has several ways to it is followed
    once, where it is nearest to the root; elsewhere it is ``repeated``. ``hidden`` counts neighbours that the
    depth limit kept out.
    """

    node: Node
    depth: int
    via: EdgeKind | None = None
    children: tuple[TraceNode, ...] = ()
    repeated: bool = False
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """A walk from one dataset, with every dataset and edge met on it, each once."""

    root: TraceNode
    direction: Direction
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def trace(graph: Graph, node: str | DatasetName, direction: Direction = "up", depth: int | None = None) -> Trace:
    """Walk from a dataset to all it was made from (``up``) or all that was made from it (``down``).

    ``node`` is what ``find`` understands; ``depth`` is the number of steps, None for all of them. Cycles end
    the walk. Raises UserError where no dataset, or more than one, is meant by ``node``.
    """
    if depth is not None and depth < 0:
        raise UserError(f"A trace's depth is a number of steps, 0 or more, not {depth}.")
    start = node if isinstance(node, DatasetName) else find(graph, node, direction).dataset
    if start not in graph.nodes:
        raise UserError(f"The recorded lineage has no dataset {start.name!r} in {start.namespace!r}.")
    neighbours = _neighbours(graph, direction)

    # Nearest first, so that with a depth limit nothing within it is lost because a longer way to it was met
    # before.
    distance = {start: 0}
    met: set[Edge] = set()
    queue = deque([start])
    # Who follows a dataset: the first of those one step nearer, in the order of the walk.
    followed_by: dict[DatasetName, DatasetName] = {}
    while queue:
        here = queue.popleft()
        if depth is not None and distance[here] >= depth:
            continue
        for edge, there in neighbours(here):
            met.add(edge)
            if there not in distance:
                distance[there] = distance[here] + 1
                followed_by[there] = here
                queue.append(there)

    def followed(place: DatasetName, via: EdgeKind | None) -> TraceNode:
        further = list(neighbours(place))
        if depth is not None and distance[place] >= depth:
            return TraceNode(graph.nodes[place], distance[place], via, hidden=len(further))
        # Of two edges to the same dataset, as of data and of a reference, the first is followed.
        first = {there: edge for edge, there in reversed(further)}
        children = tuple(
            followed(there, edge.kind)
            if followed_by.get(there) == place and first[there] is edge
            else TraceNode(graph.nodes[there], distance[place] + 1, edge.kind, repeated=True)
            for edge, there in further
        )
        return TraceNode(graph.nodes[place], distance[place], via, children)

    return Trace(
        followed(start, None),
        direction,
        tuple(graph.nodes[name] for name in distance),
        tuple(edge for edge in graph.edges if edge in met),
    )


def find(graph: Graph, name: str, direction: Direction = "up") -> Node:
    """The dataset a person means by ``name``.

    A dataset of a contract (``person_register``: its raw table), ``schema.table``, a model by its bare name,
    a publication (bare, or ``release:<publication>``), a feed (``<bureau>/<dataset>``) or the full name.
    Where layers share a bare name and lie on one path, the one is meant whose trace in this direction
    contains the others. Raises UserError otherwise.
    """
    text = name.strip()
    if not graph.nodes:
        raise UserError("No lineage is recorded yet: bring data in first, with `dopa demo` or `dopa ingest DATASET PATH`.")
    for choose in (_full_names, _bare_names):
        found = _unique(node for node in graph.nodes.values() if text in choose(node))
        if not found:
            continue
        raw = [node for node in found if node.target == f"raw.{text}"]
        if len(found) == 1 or raw:
            return (raw or found)[0]
        outermost = [node for node in found if _contains(graph, node, found, direction)]
        if len(outermost) == 1:
            return outermost[0]
        names = ", ".join(sorted(node.label for node in found))
        raise UserError(f"{text!r} may mean {names}: say which.")
    near = _near(graph, text)
    hint = f" Did you mean {_either(near)}?" if near else ""
    raise UserError(f"No dataset, model or publication called {text!r} was ever written here.{hint}")


def as_json(walk: Trace) -> dict[str, object]:
    """The walk for machines: each dataset once, each edge once from source to target, and the tree by
    name."""
    labels = {node.dataset: node.label for node in walk.nodes}
    return {
        "dataset": walk.root.node.label,
        "direction": walk.direction,
        "nodes": [_node_json(node) for node in walk.nodes],
        "edges": [{"from": labels[edge.source], "to": labels[edge.target], "kind": edge.kind} for edge in walk.edges],
        "tree": _tree_json(walk.root),
    }


def as_tree(walk: Trace, *, zone: tzinfo = BANGKOK) -> Tree:
    """The walk as a rich tree: each dataset with when, by which run and from which file it was last
    written."""
    from rich.tree import Tree

    tree = Tree(_line(walk.root, walk.direction, zone), highlight=False)

    def grow(branch: Tree, place: TraceNode) -> None:
        for child in place.children:
            grow(branch.add(_line(child, walk.direction, zone)), child)

    grow(tree, walk.root)
    return tree


def _neighbours(graph: Graph, direction: Direction) -> Callable[[DatasetName], list[tuple[Edge, DatasetName]]]:
    if direction == "up":
        return lambda name: [(edge, edge.source) for edge in graph.inputs.get(name, ())]
    return lambda name: [(edge, edge.target) for edge in graph.outputs.get(name, ())]


def _full_names(node: Node) -> tuple[str, ...]:
    namespace, name = node.dataset
    return (node.label, name, f"{namespace}/{name}", f"{namespace}:{name}")


def _bare_names(node: Node) -> tuple[str, ...]:
    return (node.bare,)


def _unique(nodes: Iterable[Node]) -> list[Node]:
    return list({node.dataset: node for node in nodes}.values())


def _contains(graph: Graph, node: Node, others: list[Node], direction: Direction) -> bool:
    """Whether the walk from ``node`` meets all the others."""
    neighbours = _neighbours(graph, direction)
    seen = {node.dataset}
    stack = [node.dataset]
    while stack:
        for _, there in neighbours(stack.pop()):
            if there not in seen:
                seen.add(there)
                stack.append(there)
    return all(other.dataset in seen for other in others)


def _near(graph: Graph, text: str) -> list[str]:
    """Up to three names like ``text``, as a person would type them."""
    typed: dict[str, str] = {}
    for node in graph.nodes.values():
        typed.setdefault(node.label.lower(), node.label)
        # A bare name is the likelier slip, and what leads to the label.
        typed.setdefault(node.bare.lower(), node.label if node.kind != "feed" else node.bare)
    close = difflib.get_close_matches(text.lower(), typed, n=6, cutoff=0.6)
    return list(dict.fromkeys(typed[word] for word in close))[:3]


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _node_json(node: Node) -> dict[str, object]:
    return {
        "name": node.label,
        "namespace": node.dataset.namespace,
        "dataset": node.dataset.name,
        "kind": node.kind,
        "exists": node.exists,
        "last_write": _write_json(node.write) if node.write else None,
    }


def _write_json(write: Write) -> dict[str, object]:
    return {
        "id": write.id,
        "kind": write.kind,
        "at": write.written_at.isoformat(),
        "by": write.written_by,
        "actor": write.actor,
        "run_id": write.run_id,
        "parent_run_id": write.parent_run_id,
        "version": write.version,
        "rows_in": write.rows_in,
        "rows_out": write.rows_out,
        "rows_quarantined": write.rows_quarantined,
        "file": write.file,
        "sha256": write.sha256,
    }


def _tree_json(place: TraceNode) -> dict[str, object]:
    line: dict[str, object] = {"name": place.node.label}
    if place.via:
        line["via"] = place.via
    if place.repeated:
        line["repeated"] = True
    if place.hidden:
        line["hidden"] = place.hidden
    if place.children:
        line["children"] = [_tree_json(child) for child in place.children]
    return line


def _line(place: TraceNode, direction: Direction, zone: tzinfo) -> Text:
    from rich.text import Text

    node = place.node
    line = Text()
    line.append(node.label, style="bold" if place.via is None else "")
    notes: list[str] = [] if node.kind == "table" else [_kind(node)]
    if place.via == "reference":
        notes.append("reference")
    if not node.exists:
        notes.append("dropped since")
    if notes:
        line.append(f" ({', '.join(notes)})", style="cyan")
    if place.repeated:
        line.append("  … shown elsewhere", style="dim")
        return line
    details = _details(node, zone)
    if details:
        line.append(f"  {details}", style="dim")
    if place.hidden:
        line.append(f"  … {place.hidden} more {direction}", style="yellow")
    return line


def _kind(node: Node) -> str:
    return "file of the project" if is_project_file(node.dataset) else _KINDS[node.kind]


_KINDS = {"feed": "silo", "release": "publication", "external": "elsewhere"}


def _details(node: Node, zone: tzinfo) -> str:
    write = node.write
    if write is None:
        return "never written here"
    if node.kind == "feed":
        source = write.file or "delivery"
        return f"{source} sha256 {write.sha256[:12]}" if write.sha256 else source
    words = [_when(write.written_at, zone)]
    if write.rows_out is not None:
        words.append(f"{write.rows_out:,} rows")
    if write.rows_quarantined:
        words.append(f"{write.rows_quarantined:,} quarantined")
    if node.kind == "release" and write.version:
        words.append(f"release {write.version}")
    if write.run_id:
        words.append(f"run {_short(write.run_id)}")
    if write.file:
        words.append(f"from {write.file}")
    return ", ".join(words)


def _when(moment: datetime, zone: tzinfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M")


def _short(run_id: str) -> str:
    """A run's first eight characters, as Dagster shows them; all of an id that is no UUID."""
    return run_id[:8] if len(run_id) == 36 and run_id.count("-") == 4 else run_id
