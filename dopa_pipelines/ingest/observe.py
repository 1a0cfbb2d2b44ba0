"""What may look on while a delivery is loaded. Who does is above this room: profiles are :mod:`dopa_pipelines.quality`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import psycopg

from dopa_pipelines.contracts import Contract
from dopa_pipelines.ingest.enforce import Enforced

if TYPE_CHECKING:
    from dopa_pipelines.ingest.load import Delivery


class Observer(Protocol):
    """Looks at one delivery. It may cost time and must never decide about the delivery."""

    def saw(self, enforced: Enforced) -> None:
        """A batch after enforcement, in the thread that enforces, while it is copied. Must not raise."""

    def ended(self) -> None:
        """That was the last batch, in the same thread. What takes longer goes into a thread of its own. Must not raise."""

    def loaded(self, connection: psycopg.Connection[Any], delivery: Delivery) -> None:
        """The delivery is recorded, its write too; in its transaction, before the commit."""


Observe: TypeAlias = Callable[[Contract], Observer]
"""Makes the observer of one delivery."""
