"""A stand-in for a CKAN site: the Action API over real HTTP, with the Thai schema's rules, that misbehaves on order.

It shares no code with what it examines. What it is asked goes to ``calls``; after every change it looks at the datasets that
people find, and notes in ``broken`` each that links to what is not, byte for byte, the file its ``hash`` names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import shutil
import socket
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "eyJ0-the-secret-token"
ORGANISATION = "dopa"

# ckanext-thai_gdc, ckan_dataset.json: what is `required`, and two of its lists of choices.
REQUIRED = (
    "data_type", "title", "owner_org", "maintainer", "maintainer_email", "tag_string", "notes", "objective",
    "update_frequency_unit", "geo_coverage", "data_source", "data_format", "data_category", "license_id",
)  # fmt: skip
DATA_TYPES = {
    "ข้อมูลระเบียน", "ข้อมูลสถิติ", "ข้อมูลภูมิสารสนเทศเชิงพื้นที่", "ข้อมูลหลากหลายประเภท", "ข้อมูลประเภทอื่นๆ"
}  # fmt: skip
WRITES = {
    "package_create", "package_patch", "package_update", "package_delete",
    "resource_create", "resource_update", "resource_patch", "resource_delete",
}  # fmt: skip


class RefusalError(Exception):
    def __init__(self, status: int, error: dict[str, Any]) -> None:
        self.status, self.error = status, error


def invalid(**fields: str) -> RefusalError:
    return RefusalError(409, {"__type": "Validation Error", **{key: [text] for key, text in fields.items()}})


class Standin:
    """``faults[action]`` is what its next calls meet, first come first: a status (an answer of that status, the request not
    done), ``late`` (done, and answered 504), ``hang``, ``drop`` (no answer), ``cut`` (the connection is closed before the end of
    the upload, and half is kept), ``half`` (half is kept, and the answer is good), ``other`` (other bytes of the same length
    are kept, and the answer is good)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.faults: defaultdict[str, list[int | str]] = defaultdict(list)
        self.broken: list[str] = []
        self.url = ""
        self.organisation = {"id": str(uuid.uuid4()), "name": ORGANISATION}
        self.headers: dict[str, str] = {}
        self.lock = threading.Lock()
        self.over = threading.Event()

    # What tests ask

    def shown(self, name: str) -> dict[str, Any]:
        return self._package({"id": name})

    def content(self, resource: dict[str, Any]) -> bytes:
        return (self.folder / str(resource["url"]).split("/resource/")[1].split("/")[0]).read_bytes()

    def count(self, *actions: str) -> int:
        return sum(self.calls.count(action) for action in actions)

    @property
    def written(self) -> int:
        return self.count(*WRITES)

    # Actions

    def act(self, action: str, data: dict[str, Any], upload: Path | None) -> Any:
        with self.lock:
            done = getattr(self, f"do_{action}")(data, upload)
            self._look()
            return done

    def do_organization_show(self, data: dict[str, Any], upload: Path | None) -> Any:
        if data["id"] not in self.organisation.values():
            raise RefusalError(404, {"__type": "Not Found Error", "message": "Not found"})
        return self.organisation

    def do_package_show(self, data: dict[str, Any], upload: Path | None) -> Any:
        return self._package(data)

    def do_package_create(self, data: dict[str, Any], upload: Path | None) -> Any:
        if any(item["name"] == data["name"] for item in self.packages.values()):
            raise invalid(name="That URL is already in use.")
        made = {"type": "dataset", "private": False, "resources": [], **data, "id": str(uuid.uuid4())}
        return self._keep(made)

    def do_package_patch(self, data: dict[str, Any], upload: Path | None) -> Any:
        return self._keep({**self._package(data), **data})

    def do_resource_create(self, data: dict[str, Any], upload: Path | None) -> Any:
        package = self._package({"id": data["package_id"]})
        made = {**data, "id": str(uuid.uuid4())}
        if upload is not None:
            shutil.move(upload, self.folder / made["id"])
            self._stored(made)
        package["resources"].append(made)
        self._keep(package)
        return made

    def do_resource_patch(self, data: dict[str, Any], upload: Path | None) -> Any:
        package, resource = self._resource(data["id"])
        resource.update(data)
        self._keep(package)
        return resource

    def do_resource_delete(self, data: dict[str, Any], upload: Path | None) -> Any:
        package, resource = self._resource(data["id"])
        package["resources"].remove(resource)
        (self.folder / resource["id"]).unlink(missing_ok=True)

    def _stored(self, resource: dict[str, Any]) -> None:
        name = str(resource["url"]).rsplit("/", 1)[-1]
        resource["url"] = f"{self.url}/dataset/{resource['package_id']}/resource/{resource['id']}/download/{name}"
        resource["url_type"] = "upload"
        resource["size"] = (self.folder / resource["id"]).stat().st_size

    def _package(self, data: dict[str, Any]) -> dict[str, Any]:
        for item in self.packages.values():
            if data["id"] in (item["id"], item["name"]):
                return json.loads(json.dumps(item))  # type: ignore[no-any-return]
        raise RefusalError(404, {"__type": "Not Found Error", "message": "Not found"})

    def _resource(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        for item in list(self.packages.values()):
            for resource in item["resources"]:
                if resource["id"] == key:
                    return item, resource
        raise RefusalError(404, {"__type": "Not Found Error", "message": "Resource was not found."})

    def _keep(self, package: dict[str, Any]) -> dict[str, Any]:
        if package["type"] == "dataset":
            if "tags" in package and "tag_string" not in package:
                package["tag_string"] = ",".join(tag["name"] for tag in package["tags"])
            for key in REQUIRED:
                if not package.get(key):
                    raise invalid(**{key: "Missing value"})
            if package["data_type"] not in DATA_TYPES:
                raise invalid(data_type=f"Value must be one of: {', '.join(sorted(DATA_TYPES))}")
            for key in ("objective", "data_format"):
                if not isinstance(package[key], list):
                    raise invalid(**{key: "expecting list of strings"})
            # CKAN takes tags as one text and shows them as a list.
            package["tags"] = [{"name": name.strip()} for name in package.pop("tag_string").split(",")]
        if package["owner_org"] not in self.organisation.values():
            raise invalid(owner_org="Organization does not exist")
        package["owner_org"] = self.organisation["id"]
        for resource in package["resources"]:
            resource.setdefault("id", str(uuid.uuid4()))
            for key in ("name", "url", "format"):
                if not resource.get(key):
                    raise invalid(**{f"resources {key}": "Missing value"})
        self.packages[package["id"]] = package
        return json.loads(json.dumps(package))  # type: ignore[no-any-return]

    def _look(self) -> None:
        for package in self.packages.values():
            if package["type"] != "dataset":
                continue
            for resource in package["resources"]:
                file = self.folder / str(resource["url"]).split("/resource/")[-1].split("/")[0]
                if not file.is_file() or f"sha256:{_sha256(file)}" != resource.get("hash"):
                    self.broken.append(f"{package['name']}: {resource['name']} after {self.calls[-1]}")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    site: Standin

    def do_GET(self) -> None:
        fault = self._fault("download")
        key = self.path.split("/resource/")[-1].split("/")[0]
        file = self.site.folder / key
        if isinstance(fault, int) or not file.is_file():
            return self._send(fault if isinstance(fault, int) else 404, b"<html>", "text/html")
        if fault == "hang":
            return self._hang()
        self.send_response(200)
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        with file.open("rb") as opened:
            shutil.copyfileobj(opened, self.wfile)
        return None

    def do_POST(self) -> None:
        site, action = self.site, self.path.rsplit("/", 1)[-1]
        site.calls.append(action)
        site.headers = dict(self.headers)
        fault = self._fault(action)
        if fault == "hang":
            return self._hang()
        if isinstance(fault, int):
            # As a proxy does: the body is not even read.
            self.close_connection = True
            return self._send(fault, b"<html><h1>proxy</h1></html>", "text/html")
        length = int(self.headers["Content-Length"])
        body = site.folder / f"body-{uuid.uuid4()}"
        with body.open("wb") as file:
            left = length - 60 if fault == "cut" else length  # without its end
            while left:
                block = self.rfile.read(min(left, 1 << 20))
                if not block:
                    break
                file.write(block)
                left -= len(block)
        if fault == "drop":
            return self._close()
        data, upload = self._parts(body)
        if upload is not None and fault in ("half", "cut"):
            with upload.open("r+b") as file:
                file.truncate(upload.stat().st_size // 2)
        if upload is not None and fault == "other":
            upload.write_bytes(b"x" * upload.stat().st_size)
        if action in WRITES and self.headers.get("Authorization") != TOKEN:
            error = {"__type": "Authorization Error", "message": f"Access denied: {self.headers.get('Authorization')} may not"}
            return self._answer(403, {"success": False, "error": error})
        try:
            result = site.act(action, data, upload)
        except RefusalError as refusal:
            return self._answer(refusal.status, {"success": False, "error": refusal.error})
        if fault == "late":
            return self._send(504, b"<html>Gateway Time-out</html>", "text/html")
        if fault == "cut":
            return self._close()
        return self._answer(200, {"success": True, "result": result})

    def _parts(self, body: Path) -> tuple[dict[str, Any], Path | None]:
        """The request's values, and its file on disk."""
        kind = self.headers["Content-Type"]
        if kind.startswith("application/json"):
            data = json.loads(body.read_bytes())
            body.unlink()
            return data, None
        boundary = b"--" + kind.split("boundary=")[1].encode()
        values: dict[str, Any] = {}
        upload = None
        with body.open("r+b") as file, mmap.mmap(file.fileno(), 0) as text:
            start = text.find(boundary)
            while (begin := text.find(b"\r\n\r\n", start)) > 0:
                end = text.find(b"\r\n" + boundary, begin)
                whole = end if end >= 0 else len(text)  # a connection that was cut off has no end
                head = text[start:begin].decode()
                name = head.split('name="')[1].split('"')[0]
                if "filename=" in head:
                    upload = self.site.folder / f"upload-{uuid.uuid4()}"
                    with upload.open("wb") as out:
                        for at in range(begin + 4, whole, 1 << 20):
                            out.write(text[at : min(at + (1 << 20), whole)])
                else:
                    values[name] = text[begin + 4 : whole].decode()
                if end < 0:
                    break
                start = end + 2
        body.unlink()
        return values, upload

    def _fault(self, action: str) -> int | str | None:
        queue = self.site.faults[action]
        return queue.pop(0) if queue else None

    def _hang(self) -> None:
        self.close_connection = True
        self.site.over.wait(30)

    def _close(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, json.dumps({"help": "…", **answer}).encode(), "application/json;charset=utf-8")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Standin]:
    """A site on a free port of the loopback that keeps its files in ``folder``."""
    site = Standin(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    server.daemon_threads = True
    # A peer that goes away in the middle is what some tests are about.
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
