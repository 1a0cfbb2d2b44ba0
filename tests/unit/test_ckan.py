"""Pushing to a catalogue, against a stand-in that speaks CKAN's Action API over HTTP and misbehaves on order."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dopa_pipelines.errors import UserError
from dopa_pipelines.publishing.ckan import push_one, take_down
from dopa_pipelines.publishing.ckan_site import NoCkan, Patience, Refused, Site, site_of
from dopa_pipelines.publishing.describe import as_json, dated, metadata
from dopa_pipelines.publishing.publication import read_publication
from dopa_pipelines.publishing.pushes import Push
from dopa_pipelines.settings import Settings, project_root
from tests.ckan.standin import ORGANISATION, TOKEN, Standin, serve

PUBLICATION = read_publication(project_root() / "assets" / "open_data" / "births_by_province.yaml")
NAME = PUBLICATION.name
QUICK = Patience(attempts=3, first_pause=0.01, longest_pause=0.05, connect=2, read=0.5)
PASSING = (429, 502, 503, 504, "hang", "drop", "late")
PERMANENT = (400, 403, 404, 409, 413, 500)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Standin]:
    (tmp_path / "site").mkdir()
    with serve(tmp_path / "site") as site:
        yield site


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    folder = tmp_path / "releases"
    release(folder, "2026-10-05-aaaa", b"month,births\n2026-09-01,12\n")
    return folder


def release(folder: Path, version: str, content: bytes, name: str = NAME) -> None:
    """A release on disk, as :func:`publish` leaves it, and ``latest`` moved to it."""
    path = folder / name / version
    path.mkdir(parents=True)
    (path / f"{name}.csv").write_bytes(content)
    (path / f"{name}.json").write_bytes(b'[{"births": 12}]')
    (path / "data_dictionary.csv").write_bytes(b"name,type\nbirths,integer\n")
    described = {**metadata(PUBLICATION), "name": name}
    (path / "metadata.json").write_bytes(as_json(dated(described, PUBLICATION.approval.approved_on)))
    package = {"title": "Births (การเกิด)", "resources": [{"path": f"{name}.{form}"} for form in ("csv", "json")]}
    (path / "datapackage.json").write_bytes(as_json(package))
    files = [
        {"name": file.name, "bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(path.iterdir())
    ]
    (path / "release.json").write_bytes(as_json({"version": version, "files": files}))
    latest = folder / name / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(version)


def push(catalogue: Standin, releases: Path, name: str = NAME, token: str = TOKEN, **options: Any) -> Push:
    with closing(Site(catalogue.url, token, ORGANISATION, QUICK)) as site:
        return push_one(site, catalogue.organisation["id"], releases / name, **options)


def contents(catalogue: Standin, name: str = NAME) -> dict[str, bytes]:
    """What people get who follow the links of the dataset, by file."""
    return {item["description"]: catalogue.content(item) for item in catalogue.shown(name)["resources"]}


def test_a_release_becomes_a_dataset_with_its_files(catalogue: Standin, releases: Path) -> None:
    made = push(catalogue, releases)
    assert (made.status, made.problem, made.files) == ("created", None, 4)
    path = releases / NAME / "2026-10-05-aaaa"
    names = [f"{NAME}.csv", f"{NAME}.json", "data_dictionary.csv", "datapackage.json"]
    assert contents(catalogue) == {name: (path / name).read_bytes() for name in names}
    assert made.bytes == sum((path / name).stat().st_size for name in names)
    shown = catalogue.shown(NAME)
    for key, value in json.loads((path / "metadata.json").read_text()).items():
        if key == "tag_string":
            assert [tag["name"] for tag in shown["tags"]] == value.split(",")
        elif key != "owner_org":
            assert shown[key] == value
    first = shown["resources"][0]
    assert (first["format"], first["resource_unit_of_measure"], first["resource_disaggregate"]) == (
        "CSV", "คน", ["เพศ", "ขอบเขตเชิงภูมิศาสตร์หรือเชิงพื้นที่"],
    )  # fmt: skip
    assert not catalogue.broken


def test_the_same_release_again_changes_nothing(catalogue: Standin, releases: Path) -> None:
    push(catalogue, releases)
    before, written = json.dumps(catalogue.packages), catalogue.written
    again = push(catalogue, releases)
    assert (again.status, again.files, catalogue.written) == ("unchanged", 0, written)
    assert json.dumps(catalogue.packages) == before


def test_another_release_takes_its_place_under_the_same_addresses(catalogue: Standin, releases: Path) -> None:
    push(catalogue, releases)
    old = {item["name"]: item["id"] for item in catalogue.shown(NAME)["resources"]}
    release(releases, "2026-11-05-bbbb", b"month,births\n2026-09-01,12\n2026-10-01,9\n")
    assert push(catalogue, releases).status == "updated"
    assert {item["name"]: item["id"] for item in catalogue.shown(NAME)["resources"]} == old
    assert contents(catalogue)[f"{NAME}.csv"].endswith(b"2026-10-01,9\n")
    # Nothing of the old release is left lying about.
    assert {item["name"].split("/")[0] for item in catalogue.shown(f"{NAME}-files")["resources"]} == {"2026-11-05-bbbb"}
    assert not catalogue.broken


def test_changed_metadata_alone_are_switched(catalogue: Standin, releases: Path) -> None:
    push(catalogue, releases)
    path = releases / NAME / "2026-10-05-aaaa" / "metadata.json"
    path.write_bytes(as_json({**json.loads(path.read_text()), "notes": "แก้ไขคำอธิบาย"}))
    again = push(catalogue, releases)
    assert (again.status, again.files, catalogue.shown(NAME)["notes"]) == ("updated", 0, "แก้ไขคำอธิบาย")


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        *itertools.product(("package_show", "package_create", "resource_create", "resource_patch"), PASSING),
        *itertools.product(["download"], (429, 502, 503, 504, "hang")),
    ],
)
def test_what_passes_is_tried_again(catalogue: Standin, releases: Path, action: str, fault: int | str) -> None:
    catalogue.faults[action] = [fault, fault]
    made = push(catalogue, releases)
    assert (made.status, made.problem) == ("created", None)
    assert len(contents(catalogue)) == 4
    assert not catalogue.broken
    # An attempt that was done, and said otherwise, leaves nothing twice.
    assert len(catalogue.shown(f"{NAME}-files")["resources"]) == 4
    assert len(catalogue.packages) == 2
    assert not catalogue.faults[action]


@pytest.mark.parametrize("fault", ["half", "cut", "other"])
def test_an_upload_that_arrives_damaged_is_found_and_made_again(catalogue: Standin, releases: Path, fault: str) -> None:
    catalogue.faults["resource_create"] = [fault, fault]
    assert push(catalogue, releases).status == "created"
    assert not catalogue.broken
    assert len(catalogue.shown(f"{NAME}-files")["resources"]) == 4


@pytest.mark.parametrize("fault", ["half", "cut", "other", 504, "hang"])
def test_patience_ends_and_the_old_release_stays_whole(catalogue: Standin, releases: Path, fault: int | str) -> None:
    push(catalogue, releases)
    before = contents(catalogue)
    release(releases, "2026-11-05-bbbb", b"month,births\n2026-10-01,9\n")
    catalogue.faults["resource_create"] = [fault] * 50
    tried = catalogue.count("resource_create")
    made = push(catalogue, releases)
    assert made.status == "failed"
    assert made.problem is not None and "given up after 3 attempts" in made.problem
    assert catalogue.count("resource_create") == tried + 3
    assert contents(catalogue) == before
    assert not catalogue.broken
    catalogue.faults.clear()
    assert push(catalogue, releases).status == "updated"
    assert contents(catalogue)[f"{NAME}.csv"] == b"month,births\n2026-10-01,9\n"


@pytest.mark.parametrize("status", PERMANENT)
@pytest.mark.parametrize("action", ["resource_create", "package_create"])
def test_what_is_permanent_is_not_tried_again(catalogue: Standin, releases: Path, action: str, status: int) -> None:
    catalogue.faults[action] = [status] * 9
    made = push(catalogue, releases)
    assert made.status == "failed"
    assert catalogue.count(action) == 1
    assert made.problem is not None and ";" in made.problem and made.problem.endswith(".")
    assert f"({status})" in made.problem


def test_too_large_a_file_says_what_to_do(catalogue: Standin, releases: Path) -> None:
    push(catalogue, releases)
    release(releases, "2026-11-05-bbbb", b"x" * 5_000_000)
    catalogue.faults["resource_create"] = [413]
    made = push(catalogue, releases)
    # A server that answers without reading all may reset the connection before the answer is read.
    assert made.problem is None or "too large" in made.problem or "max_resource_size" in made.problem


def test_a_push_that_died_is_taken_up(catalogue: Standin, releases: Path) -> None:
    """Killed after an upload and before its mark: what is whole is kept, what is half is made again."""
    push(catalogue, releases)
    release(releases, "2026-11-05-bbbb", b"month,births\n2026-10-01,9\n")
    catalogue.faults["resource_patch"] = [500]
    assert push(catalogue, releases).status == "failed"
    left = [item for item in catalogue.shown(f"{NAME}-files")["resources"] if not item.get("hash")]
    assert [item["name"] for item in left] == [f"2026-11-05-bbbb/{NAME}.csv"]
    uploaded = catalogue.count("resource_create")
    assert push(catalogue, releases).status == "updated"
    assert catalogue.count("resource_create") == uploaded + 3
    release(releases, "2026-11-06-cccc", b"month,births\n2026-10-01,10\n")
    catalogue.faults["resource_create"] = ["half"]
    catalogue.faults["download"] = [403]
    # Its size tells that it is half, before any download.
    assert push(catalogue, releases).status == "failed"
    catalogue.faults.clear()
    assert push(catalogue, releases).status == "updated"
    assert not catalogue.broken


def test_a_file_that_went_bad_at_the_site_is_found_when_asked_for(catalogue: Standin, releases: Path) -> None:
    push(catalogue, releases)
    bad = catalogue.shown(NAME)["resources"][1]
    (catalogue.folder / bad["url"].split("/resource/")[1].split("/")[0]).write_bytes(b"[{}]            ")
    assert push(catalogue, releases).status == "unchanged"
    assert push(catalogue, releases, look_again=True).status == "updated"
    assert contents(catalogue)[f"{NAME}.json"] == b'[{"births": 12}]'


def test_what_the_schema_refuses_names_the_field(catalogue: Standin, releases: Path) -> None:
    path = releases / NAME / "2026-10-05-aaaa" / "metadata.json"
    path.write_bytes(as_json({**json.loads(path.read_text()), "maintainer_email": ""}))
    made = push(catalogue, releases)
    assert made.problem is not None and "maintainer_email: Missing value; correct what it names" in made.problem
    assert all(item["name"] != NAME for item in catalogue.packages.values())


def test_the_token_is_sent_and_never_told(catalogue: Standin, releases: Path) -> None:
    wrong = push(catalogue, releases, token="another-secret")
    assert wrong.problem is not None and "DOPA_CKAN_TOKEN" in wrong.problem
    # The stand-in repeats it in its answer.
    assert catalogue.headers["Authorization"] == "another-secret"
    assert "another-secret" not in json.dumps(wrong.as_dict())


def test_a_netrc_does_not_replace_the_token(
    catalogue: Standin, releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert push(catalogue, releases).status == "created"


def test_retry_after_is_heeded_within_bounds() -> None:
    patience = Patience(first_pause=2, longest_pause=60)
    assert [patience.pause(failed, None) for failed in (1, 2, 3, 9)] == [2, 4, 8, 60]
    assert patience.pause(1, 7) == 7
    assert patience.pause(1, 86_400) == 60


def test_no_release_and_no_catalogue(catalogue: Standin, releases: Path) -> None:
    (releases / "other").mkdir()
    made = push(catalogue, releases, name="other")
    assert made.problem == "other has no release yet; `dopa publish other` makes one."
    assert site_of(Settings()) is None
    with pytest.raises(UserError, match="DOPA_CKAN_TOKEN and DOPA_CKAN_ORGANISATION must be"):
        site_of(Settings(ckan_url="https://catalogue.example.go.th"))
    with pytest.raises(UserError, match="without a user or password"):
        site_of(Settings(ckan_url="https://me:pw@x.go.th", ckan_token=SecretStr("t"), ckan_organisation="o"))


def test_an_address_that_is_no_ckan(catalogue: Standin) -> None:
    with closing(Site(f"{catalogue.url}/nothing/here", TOKEN, ORGANISATION, QUICK)) as site:
        catalogue.faults["organization_show"] = [404]
        with pytest.raises(NoCkan, match="see that DOPA_CKAN_URL"):
            site.show("organization_show", ORGANISATION)
    with closing(Site("http://127.0.0.1:9", TOKEN, ORGANISATION, QUICK)) as site:
        began = time.monotonic()
        with pytest.raises(UserError, match=r"could not be reached.*given up after 3 attempts"):
            site.show("organization_show", ORGANISATION)
        assert time.monotonic() - began < 5


def test_withdrawal_leaves_a_page_that_says_why(catalogue: Standin, releases: Path) -> None:
    push(catalogue, releases)
    with closing(Site(catalogue.url, TOKEN, ORGANISATION, QUICK)) as site:
        assert take_down(site, NAME, "พบตัวเลขผิด") == ("withdrawn", "2026-10-05-aaaa")
        shown = catalogue.shown(NAME)
        assert shown["title"].startswith("[ถอนการเผยแพร่]") and shown["resources"] == []
        assert "พบตัวเลขผิด" in shown["notes"] and shown["state"] == "active"
        assert catalogue.shown(f"{NAME}-files")["resources"] == []
        before = json.dumps(catalogue.packages)
        assert take_down(site, NAME, "อีกครั้ง") == ("unchanged", "2026-10-05-aaaa")
        assert json.dumps(catalogue.packages) == before
        with pytest.raises(Refused, match="nothing to withdraw"):
            take_down(site, "other", "why")
    # The schedule does not bring it back; a corrected release does.
    made = push(catalogue, releases)
    assert made.status == "failed" and made.problem is not None and "was withdrawn" in made.problem
    release(releases, "2026-10-06-dddd", b"month,births\n2026-09-01,13\n")
    assert push(catalogue, releases).status == "updated"
    assert not catalogue.shown(NAME)["title"].startswith("[")
    assert len(contents(catalogue)) == 4


_MEASURED = """
import sys
from contextlib import closing
from pathlib import Path
from dopa_pipelines.publishing.ckan import push_one
from dopa_pipelines.publishing.ckan_site import Site
url, token, organisation, folder = sys.argv[1:]
with closing(Site(url, token, organisation)) as site:
    made = push_one(site, organisation, Path(folder))
assert made.status == "created", made.problem
# Not getrusage: its highest size is inherited from the process that started this one.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def test_a_large_file_takes_no_memory(catalogue: Standin, releases: Path) -> None:
    """40 MB more of a file are not 40 MB more of memory."""
    release(releases, "1", b"x" * 1_000, name="small")
    release(releases, "1", b"x" * 40_000_000, name="large")
    taken = {}
    for name in ("small", "large"):
        arguments = [catalogue.url, TOKEN, catalogue.organisation["id"], str(releases / name)]
        done = subprocess.run([sys.executable, "-c", _MEASURED, *arguments], capture_output=True, text=True, check=True)
        taken[name] = int(done.stdout) / 1024
    assert taken["large"] - taken["small"] < 10, taken
