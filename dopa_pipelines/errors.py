"""Failures that a person caused and can repair.

What belongs here: the few exception types that every room raises and the command line turns into an exit
code. What doesn't: errors of the program itself (those keep their traceback), and exceptions that one room
raises and catches alone.
"""

from __future__ import annotations


class UserError(Exception):
    """Something outside the program is wrong: one clear sentence that says what, where, and what to do.

    The command line prints the sentence without a traceback and exits with ``exit_code``.
    """

    exit_code: int = 2


class UnfinishedError(UserError):
    """The work was cut off by something that will pass; the same command again finishes it."""

    exit_code: int = 4


class Rejected(UserError):  # noqa: N818 - the word of the whole project
    """A delivery was refused as a whole; nothing of it was loaded.

    Its sentence quotes names and titles from outside: what steers a terminal or breaks the line is shown as an escape.
    """

    exit_code: int = 3

    def __init__(self, message: str) -> None:
        super().__init__(message if message.isprintable() else "".join(map(_shown, message)))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character in "\n\u00a0" else character.encode("unicode_escape").decode()
