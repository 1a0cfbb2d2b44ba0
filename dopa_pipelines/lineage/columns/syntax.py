"""PostgreSQL's syntax that sqlglot does not parse, taken out of its tokens and handed over apart.

Belongs here: forms whose meaning for lineage is known and which the parser would refuse. They are found in tokens, not in text,
so strings, comments and quoted names are never taken for them. Does not belong here: what they mean (``walk``, ``change``).

sqlglot's parser is compiled and can have no subclass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.postgres import Postgres

from dopa_pipelines.lineage.columns.names import folded

_OPERATOR = frozenset("+-*/<>=~!@#%^&|`?")


class Dialect(Postgres):
    """PostgreSQL that keeps where functions stand, so that a column can be called as its function was written."""

    PRESERVE_ORIGINAL_NAMES = True


@dataclass
class Parsed:
    """The statements of a text, None for an empty one, the tokens they were parsed from, and what was taken out of these.

    ``join_names``: of ``using (a, b) as j``, by where the last name in the parentheses starts; ``row_names``: what ``returning
    with (old as o, new as n)`` calls ``old`` and ``new``; ``recursive_view``: whether the view that is created may read itself.
    """

    tokens: list[Token]
    statements: list[exp.Expr | None] = field(default_factory=list)
    join_names: dict[int, str] = field(default_factory=dict)
    row_names: dict[str, str] = field(default_factory=dict)
    recursive_view: bool = False


def parse(sql: str) -> Parsed:
    """Raises sqlglot's SqlglotError where the rest is not understood either."""
    dialect = Dialect()
    found = Parsed(list(dialect.tokenize(sql)))
    found.tokens = _rest(found)
    found.statements = list(dialect.parser().parse(found.tokens, sql))
    return found


def _rest(found: Parsed) -> list[Token]:
    tokens, place = found.tokens, 0
    rest: list[Token] = []
    while place < len(tokens):
        token = tokens[place]
        past = place
        if token.token_type == TokenType.USING:
            past = _operator(tokens, place + 1) or place
            if past == place and (closed := _names(tokens, place + 1)) is not None and _word(tokens, closed, "AS"):
                named = tokens[closed + 1 : closed + 2]
                if named and _is_name(named[0]):
                    found.join_names[tokens[closed - 2].start] = _name(named[0])
                    rest += tokens[place:closed]
                    past = closed + 2
        elif _word(tokens, place, "RECURSIVE") and _creates_view(tokens, place):
            found.recursive_view = True
            past = place + 1
        elif token.token_type == TokenType.RETURNING and _word(tokens, place + 1, "WITH"):
            names = _row_names(tokens, place + 2)
            if names is not None:
                past = names[1]
                found.row_names |= names[0]
                rest.append(token)
        elif all(_word(tokens, place + step, word) for step, word in enumerate(("OVERRIDING", "SYSTEM", "VALUE"))):
            past = place + 3
        if past == place:
            rest.append(token)
            past += 1
        place = past
    return rest


def _operator(tokens: Sequence[Token], place: int) -> int | None:
    """Where ``using <`` or ``using operator(pg_catalog.<)`` ends: an order by another operator, which decides the same."""
    if _word(tokens, place, "OPERATOR") and place + 1 < len(tokens) and tokens[place + 1].token_type == TokenType.L_PAREN:
        end = place + 2
        while end + 1 < len(tokens) and _is_name(tokens[end]) and tokens[end + 1].token_type == TokenType.DOT:
            end += 2
        past = _operator(tokens, end)
        closed = past is not None and past < len(tokens) and tokens[past].token_type == TokenType.R_PAREN
        return past + 1 if past is not None and closed else None
    end = place
    while (
        end < len(tokens)
        and _bare(tokens[end])
        and set(tokens[end].text) <= _OPERATOR
        and (end == place or tokens[end].start == tokens[end - 1].end + 1)
    ):
        end += 1
    return end if end > place else None


def _names(tokens: Sequence[Token], place: int) -> int | None:
    """Where ``(a, b)``, names alone, ends."""
    if place >= len(tokens) or tokens[place].token_type != TokenType.L_PAREN:
        return None
    while place + 2 < len(tokens) and _is_name(tokens[place + 1]):
        after = tokens[place + 2].token_type
        if after == TokenType.R_PAREN:
            return place + 3
        if after != TokenType.COMMA:
            return None
        place += 2
    return None


def _row_names(tokens: Sequence[Token], place: int) -> tuple[dict[str, str], int] | None:
    """What ``(old as o, new as n)`` names, and where it ends."""
    made: dict[str, str] = {}
    if place >= len(tokens) or tokens[place].token_type != TokenType.L_PAREN:
        return None
    while place + 4 < len(tokens) and _word(tokens, place + 2, "AS") and _is_name(tokens[place + 3]):
        what = tokens[place + 1].text.lower()
        if what not in ("old", "new"):
            return None
        made[_name(tokens[place + 3])] = what
        place += 4
        if tokens[place].token_type == TokenType.R_PAREN:
            return made, place + 1
        if tokens[place].token_type != TokenType.COMMA:
            return None
    return None


def _creates_view(tokens: Sequence[Token], place: int) -> bool:
    """Whether only ``create``, ``or replace`` and ``temp`` stand before in the statement, and ``view`` after."""
    if not _word(tokens, place + 1, "VIEW"):
        return False
    before = place - 1
    while before >= 0 and any(_word(tokens, before, word) for word in ("OR", "REPLACE", "TEMP", "TEMPORARY")):
        before -= 1
    return (
        before >= 0 and _word(tokens, before, "CREATE") and (before == 0 or tokens[before - 1].token_type == TokenType.SEMICOLON)
    )


def _word(tokens: Sequence[Token], place: int, word: str) -> bool:
    return place < len(tokens) and _bare(tokens[place]) and tokens[place].text.upper() == word


def _bare(token: Token) -> bool:
    """Whether it stands in the text as it is: no string and no quoted name."""
    return bool(token.text) and token.end - token.start + 1 == len(token.text)


def _is_name(token: Token) -> bool:
    return token.token_type == TokenType.IDENTIFIER or (_bare(token) and (token.text[0].isalpha() or token.text[0] == "_"))


def _name(token: Token) -> str:
    return folded(token.text, token.token_type == TokenType.IDENTIFIER)
