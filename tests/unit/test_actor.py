"""Who is said to have started the work."""

import getpass

import pytest

from assets.platform import actor_of
from dopa_pipelines.warehouse.actor import actor, readable


def test_the_account_unless_the_environment_names_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert actor() == getpass.getuser()
    monkeypatch.setenv("DOPA_ACTOR", "สมชาย\n ใจดี\x07")
    assert actor() == "สมชาย ใจดี"
    monkeypatch.setenv("DOPA_ACTOR", "  ")
    assert actor() == getpass.getuser()


def test_an_account_without_a_name_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert actor() == ""


def test_a_name_fits_a_setting_of_a_session() -> None:
    assert readable("a" * 300) == "a" * 200
    assert readable("\ud800x") == "?x"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, "account"),
        ({"user": "somchai@dopa.example", "dagster/schedule_name": "nightly"}, "somchai@dopa.example"),
        ({"dagster/schedule_name": "nightly"}, "system:schedule:nightly"),
        ({"dagster/sensor_name": "deliveries"}, "system:sensor:deliveries"),
        ({"dagster/from_automation_condition": "true"}, "system:automation"),
        ({"dagster/from_ui": "true"}, "system:dagster-ui"),
    ],
)
def test_a_run_tells_who_launched_it(tags: dict[str, str], expected: str) -> None:
    assert actor_of(tags, "account") == expected
