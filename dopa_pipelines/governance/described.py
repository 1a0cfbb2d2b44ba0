"""What the gate needs to know of a publication, whatever reads its file.

``publishing`` stands above this room and reads the files; its ``Publication`` is one of these. Nothing else belongs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Protocol


class Column(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...


class Approval(Protocol):
    @property
    def internal(self) -> Sequence[str]: ...
    @property
    def review_on(self) -> date: ...


class Exempted(Protocol):
    @property
    def column(self) -> str: ...
    @property
    def approved_by(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def document(self) -> str: ...
    @property
    def expires_on(self) -> date: ...


class Dimension(Protocol):
    @property
    def column(self) -> str | None: ...


class Measure(Protocol):
    @property
    def column(self) -> str: ...


class Disclosure(Protocol):
    @property
    def dimensions(self) -> Sequence[Dimension]: ...
    @property
    def measures(self) -> Sequence[Measure]: ...
    @property
    def rates(self) -> Sequence[Measure]: ...


class Described(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def columns(self) -> Sequence[Column]: ...
    @property
    def approval(self) -> Approval: ...
    @property
    def unit_of_count(self) -> str | None: ...
    @property
    def disclosure(self) -> Disclosure | None: ...
    @property
    def exceptions(self) -> Sequence[Exempted]: ...
