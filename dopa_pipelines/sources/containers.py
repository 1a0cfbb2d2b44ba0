"""What came as one delivery: a file, a gzip, a zip of several files, or a folder. Made into plain files that a reader opens.

What a container holds is told by its first bytes, never by its name. It is expanded as a stream under numbered names of this
module's own, in a private folder that is gone afterwards; no name from outside ever becomes a path. What a sender could do harm
with (bombs, links, names that climb out) is refused in one sentence. What the files hold is not looked at here.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from dopa_pipelines.errors import Rejected, UserError
from dopa_pipelines.scratch import private_folder

PIECE_BYTES = 1 << 20
MAX_BYTES = 64 << 30
MAX_MEMBERS = 10_000
MAX_DIRECTORY_BYTES = 8 << 20
"""Of a zip's list of members, which is read at once: some 800 bytes for each of the most members."""
MAX_RATIO = 200
"""A delivery that grows more than this in unpacking is no register but a bomb, once ``RATIO_FROM_BYTES`` are there."""
RATIO_FROM_BYTES = 50_000_000

_GZIP = b"\x1f\x8b"
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OFFICE = ("[Content_Types].xml", "mimetype")
"""At the root of a zip: it is one document (xlsx, docx, ods), not a container."""
_READABLE = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Ways to pack that expand in bounded memory; bzip2 and LZMA do not in Python's zipfile."""
_ENCRYPTED, _UTF8_NAME = 0x1, 0x800
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True)
class Part:
    """One file of a delivery. ``name`` is shown to people (``register.zip/a.txt``); ``path`` is a plain file to read."""

    name: str
    path: Path


def readable_name(path: Path) -> str:
    """The name of a file as it can be recorded and shown; another than its own where that is not UTF-8."""
    return path.name.encode("utf-8", "backslashreplace").decode()


@contextmanager
def unpacked(path: Path, scratch: Path) -> Iterator[list[Part]]:
    """The files of a delivery, by name; what had to be expanded is below ``scratch`` until the block ends.

    A plain file is its own part and is not copied. Raises Rejected for what cannot or must not be unpacked, UserError where
    there is no room for it.
    """
    try:
        kind = _kind(path, path.name)
    except OSError as error:
        raise _unreadable(path, error) from error
    if kind == "file":
        yield [Part(path.name, path)]
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder(scratch, "unpacked"))
        except OSError as error:
            raise UserError(f"{scratch}: nothing can be unpacked there ({error.strerror}); correct its permissions") from error
        unpacking = _Unpacking(path.name, folder)
        if kind == "folder":
            unpacking.from_folder(path)
        elif kind == "zip":
            unpacking.from_zip(path)
        else:
            unpacking.from_gzip(path, path.name, path.stat().st_size)
        if not unpacking.parts:
            raise Rejected(f"{path.name}: holds no file with anything in it; deliver it again")
        yield sorted(unpacking.parts, key=lambda part: part.name)


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of the sorted names and SHA-256 of its files.

    Raises Rejected for what is neither, UserError where it cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            digest = hashlib.sha256()
            files = [item for item in _below(path) if stat.S_ISREG(item.lstat().st_mode)]
            for name, item in sorted((item.relative_to(path).as_posix(), item) for item in files):
                digest.update(f"{name}\0{content_sha256(item)}\n".encode("utf-8", "surrogateescape"))
            return digest.hexdigest()
        if not stat.S_ISREG(mode):
            raise _no_file(path.name)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _below(folder: Path) -> Iterator[Path]:
    """Everything below a folder; links are not followed. Raises OSError, where Path.rglob leaves out what it may not read."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        for name in (*folders, *files):
            yield Path(place, name)


def _unreadable(path: Path, error: OSError) -> UserError:
    where = Path(error.filename).name if isinstance(error.filename, str) else path.name
    return UserError(
        f"{where}: cannot be read ({error.strerror or type(error).__name__}); correct its permissions, or deliver it again"
    )


def _no_file(name: str) -> Rejected:
    return Rejected(f"{name}: is a device or a pipe, not a file; deliver a file")


def _kind(path: Path, name: str) -> str:
    """``file``, ``gzip``, ``zip`` or ``folder``. Raises Rejected for what is none of them."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise Rejected(f"{name}: is a symbolic link; deliver the file itself")
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        raise _no_file(name)
    with path.open("rb") as file:
        start = file.read(4)
        if start.startswith(_GZIP):
            return "gzip"
        return "zip" if start in _ZIPS and not _is_document(file) else "file"


def _is_document(file: BinaryIO) -> bool:
    """Whether a zip is one office document."""
    if _directory_bytes(file) > MAX_DIRECTORY_BYTES:
        return False
    try:
        with zipfile.ZipFile(file) as container:
            names = {info.filename for info in container.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error):
        return False
    return any(name in names for name in _OFFICE)


def _directory_bytes(file: BinaryIO) -> int:
    """How long a zip says its list of members is; zipfile would read it whole. 0 where it says nothing."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - (1 << 16) - 200)
    file.seek(start)
    end = file.read()
    file.seek(0)
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 16:
        return 0
    (stated,) = struct.unpack_from("<L", end, at + 12)
    large = end.rfind(b"PK\x06\x06", 0, at)
    if stated == 0xFFFFFFFF and large >= 0 and len(end) >= large + 48:
        (stated,) = struct.unpack_from("<Q", end, large + 40)
    return int(stated)


def _is_no_text(name: str) -> bool:
    """Whether a file's name holds bytes that are not UTF-8 (Python keeps them as halves of characters)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_skipped(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not parts or any(part.startswith(".") or part == "__MACOSX" for part in parts) or name.lower().endswith(".done")


class _Unpacking:
    """One delivery while it is expanded: its parts so far, and how much it may still grow."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.parts: list[Part] = []
        self._folder = folder
        self._made = 0
        self._expanded = 0

    def from_gzip(self, path: Path, name: str, packed: int) -> None:
        """A gzip becomes one part. ``packed``: how long what came is, against which its growth is held."""
        with self._refusing(name), path.open("rb") as file, gzip.GzipFile(fileobj=file) as opened:
            made = self._copy(opened, name, packed)
        if not made.stat().st_size:
            made.unlink()
        elif _kind(made, name) != "file":
            raise self._nested(name)
        else:
            self.parts.append(Part(name, made))

    def from_zip(self, path: Path) -> None:
        """Every file of a zip becomes a part; gzips in it are expanded, too."""
        with self._refusing(self.name), path.open("rb") as file:
            if _directory_bytes(file) > MAX_DIRECTORY_BYTES:
                raise self._too_many()
            with zipfile.ZipFile(file) as container:
                for info, member in self._members(container, path.stat().st_size):
                    name = f"{self.name}/{member}"
                    with self._refusing(name), container.open(info) as opened:
                        made = self._copy(opened, name, info.compress_size)
                    self._add(made, name, info.compress_size)

    def from_folder(self, path: Path) -> None:
        """Every file of a folder becomes a part: itself, or expanded if it is a gzip."""
        with self._refusing(self.name):
            found = sorted(_below(path))
        if len(found) > MAX_MEMBERS:
            raise self._too_many()
        for item in found:
            relative = item.relative_to(path).as_posix()
            name = f"{self.name}/{relative}"
            mode = item.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise Rejected(f"{name}: is a symbolic link; deliver the file itself")
            if stat.S_ISDIR(mode) or _is_skipped(relative):
                continue
            if _is_no_text(relative):
                raise Rejected(f"{name}: its name is not UTF-8; rename it")
            with self._refusing(name):
                kind = _kind(item, name)
            if kind == "zip":
                raise self._nested(name)
            if kind == "gzip":
                self.from_gzip(item, name, item.stat().st_size)
            elif item.stat().st_size:
                self.parts.append(Part(name, item))

    def _members(self, container: zipfile.ZipFile, size: int) -> list[tuple[zipfile.ZipInfo, str]]:
        """Members to read, with their names; all are looked at before any is expanded."""
        infos = container.infolist()
        if len(infos) > MAX_MEMBERS:
            raise self._too_many()
        members: list[tuple[zipfile.ZipInfo, str]] = []
        for info in infos:
            member = _member_name(info)
            name = f"{self.name}/{member}"
            self._refuse_member(info, member, name)
            if not (member.endswith("/") or _is_skipped(member) or not info.file_size):
                members.append((info, member))
        named = sorted(member for _, member in members)
        for one, other in pairwise(named):
            if one == other:
                raise Rejected(f"{self.name}/{one}: stands twice in the zip; pack it again")
        self._refuse_overlap(infos, size)
        return members

    def _refuse_member(self, info: zipfile.ZipInfo, member: str, name: str) -> None:
        plain = member.replace("\\", "/")
        if not plain:
            raise Rejected(f"{self.name}: holds a file without a name; pack it again")
        if plain.startswith("/") or _DRIVE.match(plain) or ".." in plain.split("/"):
            raise Rejected(f"{name}: names a place outside of the zip; pack it again with plain file names")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a device or a pipe"
            raise Rejected(f"{name}: is {kind}; pack the file itself")
        if info.flag_bits & _ENCRYPTED:
            raise Rejected(f"{name}: is encrypted; pack it without a password and deliver it by a protected way")
        if info.compress_type not in _READABLE:
            raise Rejected(
                f"{name}: is packed in a way that is not read (method {info.compress_type}); pack it by Deflate, or gzip it"
            )
        if not info.file_size and info.CRC:
            raise Rejected(f"{name}: is damaged: the zip calls it empty, but it is not; pack it again")

    def _refuse_overlap(self, infos: list[zipfile.ZipInfo], size: int) -> None:
        """Entries that share bytes are how a small file unpacks to anything."""
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise Rejected(f"{self.name}/{_member_name(info)}: overlaps another file of the zip; pack it again")
            end = info.header_offset + 30 + len(info.orig_filename.encode(_name_encoding(info), "replace")) + info.compress_size
        if end > size:
            raise Rejected(f"{self.name}: the zip is cut off; deliver it again")

    def _add(self, made: Path, name: str, packed: int) -> None:
        """A file that came out of the zip becomes a part, unless it is a container itself."""
        kind = _kind(made, name)
        if kind == "zip":
            raise self._nested(name)
        if kind == "gzip":
            self.from_gzip(made, name, packed)
            made.unlink()
        else:
            self.parts.append(Part(name, made))

    def _copy(self, source: IO[bytes] | gzip.GzipFile, name: str, packed: int) -> Path:
        """Expand a stream into a file of its own."""
        path = self._folder / f"{self._made:06}"
        self._made += 1
        written = 0
        with self._writing(name):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            while piece := source.read(PIECE_BYTES):
                written += len(piece)
                self._expanded += len(piece)
                if self._expanded > MAX_BYTES:
                    raise Rejected(f"{name}: unpacks to more than {MAX_BYTES:,} bytes; deliver it in several parts")
                if written > RATIO_FROM_BYTES and written > MAX_RATIO * packed:
                    raise Rejected(
                        f"{name}: unpacks to more than {MAX_RATIO} times its size, as no register does; it is not read"
                    )
                with self._writing(name):
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[file.write(rest) :]
        return path

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{name}: cannot be unpacked into {self._folder.parent} ({error.strerror}); make room there"
            ) from error

    @contextmanager
    def _refusing(self, name: str) -> Iterator[None]:
        """What the libraries raise, as one sentence that names the file."""
        try:
            yield
        except EOFError as error:
            raise Rejected(f"{name}: is cut off; deliver it again") from error
        except PermissionError as error:
            raise _unreadable(Path(name), error) from error
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError, struct.error) as error:
            reason = str(error).rstrip(".")[:200] or type(error).__name__
            raise Rejected(f"{name}: is cut off or damaged ({reason}); deliver it again") from error

    def _nested(self, name: str) -> Rejected:
        return Rejected(f"{name}: is packed twice; deliver the files in one zip, one gzip each, or a folder")

    def _too_many(self) -> Rejected:
        return Rejected(f"{self.name}: holds too many files; at most {MAX_MEMBERS:,} are read in one delivery")


def _name_encoding(info: zipfile.ZipInfo) -> str:
    return "utf-8" if info.flag_bits & _UTF8_NAME else "cp437"


def _member_name(info: zipfile.ZipInfo) -> str:
    """A member's name as people read it: Thai instead of what Python makes of cp874, and nothing that steers a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in _decoded_name(info))


def _decoded_name(info: zipfile.ZipInfo) -> str:
    # Without the flag for UTF-8, Python reads cp437; programs in Thailand write cp874, and some UTF-8 all the same.
    if info.flag_bits & _UTF8_NAME or info.filename.isascii():
        return info.filename
    try:
        raw = info.filename.encode("cp437")
    except UnicodeEncodeError:
        return info.filename
    for encoding in ("utf-8", "cp874"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return info.filename
