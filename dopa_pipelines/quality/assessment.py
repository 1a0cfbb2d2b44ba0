"""Self-assessments: what of the national standard only a person can judge, in ``assets/<bureau>/<dataset>.assessment.yaml``.

Reading and refusing them belongs here, and whether an answer still counts; what it amounts to is the standard's.
An answer is signed by the dataset's quality steward, as the contract names them, and counts for a year from its day. One that has
run out, or was never given, counts as level 1: what nobody has looked at is not known to be good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from dopa_pipelines.contracts import Contract
from dopa_pipelines.documents import (
    Document,
    DocumentError,
    Problem,
    did_you_mean,
    read_document,
    unknown_keys,
    validation_problems,
)
from dopa_pipelines.quality.standard import Standard, current

SUFFIX = ".assessment.yaml"
ROLE = "quality_steward"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel, validate_by_name=False)


class _Answer(_Part):
    indicator: str
    level: Annotated[int, Field(ge=1, le=4)]
    evidence: Annotated[str, Field(min_length=1)]


class _File(_Part):
    dataset: str
    assessed_on: date
    signed_by: Annotated[str, Field(min_length=1)]
    answers: Annotated[list[_Answer], Field(min_length=1)]


@dataclass(frozen=True)
class Answer:
    """A level from 1 to 4 that the quality steward gives, and what shows it. ``sha256``: of the file that it stands in."""

    indicator: str
    level: int
    evidence: str
    assessed_on: date
    signed_by: str
    sha256: str

    def counts_on(self, day: date, standard: Standard) -> bool:
        """Whether it is in force on a day: given by then, and not run out."""
        return self.assessed_on <= day < self.assessed_on + timedelta(days=standard.answers_hold)


@dataclass(frozen=True)
class Assessments:
    """Answers by dataset and indicator, and what was wrong in the files; a file that is wrong counts for nothing."""

    answers: dict[str, dict[str, Answer]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def path_of(contract: Contract) -> Path:
    """Where the self-assessment of a dataset stands: beside its contract."""
    return contract.path.with_name(f"{contract.dataset}{SUFFIX}")


def read_assessment(contract: Contract, standard: Standard | None = None) -> dict[str, Answer]:
    """The answers of one dataset by indicator; none where there is no file. Raises :class:`DocumentError` with file and line."""
    path = path_of(contract)
    if not path.exists():
        return {}
    document = read_document(path)
    if problems := unknown_keys(document, _File):
        raise DocumentError(problems)
    try:
        told = _File.model_validate(document.data)
    except ValidationError as error:
        raise DocumentError(validation_problems(document, error)) from error
    if problems := list(_problems(document, told, contract, standard or current())):
        raise DocumentError(problems)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        item.indicator: Answer(item.indicator, item.level, item.evidence, told.assessed_on, told.signed_by, digest)
        for item in told.answers
    }


def _problems(document: Document, told: _File, contract: Contract, standard: Standard) -> Iterable[Problem]:
    if told.dataset != contract.dataset:
        yield document.problem(
            f"dataset {told.dataset!r} is not {contract.dataset!r}, whose contract stands beside it", "dataset"
        )
    stewards = [member.name for member in contract.team if member.role == ROLE]
    if not stewards:
        yield document.problem(f"nobody can sign it: {contract.path.name} names no {ROLE} in its team", "signedBy")
    elif told.signed_by not in stewards:
        yield document.problem(
            f"signedBy {told.signed_by!r} is not the {ROLE} of {contract.path.name}: {', '.join(stewards)}", "signedBy"
        )
    judged = [item.code for item in standard.indicators if item.is_judged]
    seen: set[str] = set()
    for place, item in enumerate(told.answers):
        at = ("answers", place, "indicator")
        if standard.indicator(item.indicator) is None:
            yield document.problem(f"indicator {item.indicator!r} is not known; {did_you_mean(item.indicator, judged)}", *at)
        elif item.indicator not in judged:
            yield document.problem(
                f"indicator {item.indicator} is computed, nobody judges it; take the answer out (judged: {', '.join(judged)})",
                *at,
            )
        if item.indicator in seen:
            yield document.problem(f"indicator {item.indicator} is answered twice; keep one", *at)
        seen.add(item.indicator)


def load_assessments(contracts: Iterable[Contract], folder: Path | None = None) -> Assessments:
    """The self-assessments of datasets. ``folder``: where contracts lie, to find files that belong to none of them."""
    found = Assessments()
    known = set()
    for contract in contracts:
        known.add(path_of(contract))
        try:
            if answers := read_assessment(contract):
                found.answers[contract.dataset] = answers
        except DocumentError as error:
            found.problems.extend(error.problems)
    for path in sorted(folder.rglob(f"*{SUFFIX}")) if folder else ():
        # A contract that cannot be read has a problem of its own.
        if path not in known and not path.with_name(f"{path.name.removesuffix(SUFFIX)}.odcs.yaml").exists():
            found.problems.append(Problem(path, 1, f"no contract {path.name.removesuffix(SUFFIX)}.odcs.yaml stands beside it"))
    found.problems.sort()
    return found
