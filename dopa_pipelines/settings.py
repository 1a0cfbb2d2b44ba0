"""What an installation may set: environment variables with the prefix ``DOPA_``.

What belongs here: where state lies, which server and ports are used. What doesn't: anything about a dataset
(its contract says that), credentials of silos (a contract names the environment variable that holds them),
and anything that touches the disk or the network: loading settings does neither, beyond looking for the
project's root folder.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dopa_pipelines.errors import UserError

DEFAULT_STATE = Path(".dopa")
DEFAULT_CONTRACTS = Path("assets")


def project_root() -> Path:
    """The folder that holds ``assets/`` and ``dbt_project/``.

    The working folder or the nearest of its parents; else the folder of this installation, if it is a project
    (an editable install); else the working folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parent.parent):
        if (folder / "assets").is_dir() and (folder / "dbt_project").is_dir():
            return folder
    return here


class Settings(BaseSettings):
    """Settings of one installation; paths are absolute once loaded.

    A path given by the user is relative to the working folder, as in a shell; a default is relative to the
    project's root.
    """

    model_config = SettingsConfigDict(env_prefix="DOPA_", extra="ignore", validate_default=True)

    state: Path = Field(DEFAULT_STATE, description="Folder of everything the platform keeps")
    warehouse_url: SecretStr | None = Field(None, description="URL of a PostgreSQL 15+ server; unset: embedded")
    port: int = Field(3000, ge=1, le=65535, description="Loopback port of the Dagster UI")
    ui_url: str | None = Field(None, description="Address by which others reach the Dagster UI; default its loopback port")
    portal_port: int = Field(3001, ge=1, le=65535, description="Port of the portal")
    portal_url: str | None = Field(None, description="Address by which others reach the portal; default its loopback port")
    drop_zone: Path | None = Field(None, description="Where deliveries arrive: <bureau>/<dataset>/<file>; default <state>/drop")
    releases: Path | None = Field(None, description="Where releases are written; default <state>/releases")
    contracts: Path = Field(DEFAULT_CONTRACTS, description="Folder of contracts and publications")
    postgres_user: str | None = Field(
        None,
        description="Account that runs the embedded server for root; default dopa, postgres or nobody",
    )
    as_of: date | None = Field(None, description="Day that ages, vacancies and scores of quality refer to; default today")
    ckan_url: str | None = Field(None, description="Address of the CKAN catalogue that releases are pushed to; unset: none")
    ckan_token: SecretStr | None = Field(None, description="API token of an account there that may edit datasets")
    ckan_organisation: str | None = Field(None, description="Name or id of the organisation there that datasets belong to")
    smtp_url: SecretStr | None = Field(None, description="Mail server for alerts: smtps://user:password@host:465; unset: none")
    alert_from: str | None = Field(None, description="Sender of alerts by mail; default dopa@<mail server>")
    alert_webhook: SecretStr | None = Field(None, description="Address that alerts are posted to as JSON; unset: none")

    @field_validator(
        "warehouse_url",
        "ui_url",
        "portal_url",
        "drop_zone",
        "releases",
        "postgres_user",
        "as_of",
        "ckan_url",
        "ckan_token",
        "ckan_organisation",
        "smtp_url",
        "alert_from",
        "alert_webhook",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        """An empty variable (``DOPA_WAREHOUSE_URL= make demo``) means that it isn't set."""
        return None if value == "" else value

    @field_validator("ui_url", "portal_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("it must be an address such as https://data.example.go.th or https://example.go.th/portal")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _absolute(self) -> Settings:
        given = set(self.model_fields_set)
        root = project_root()
        for name in ("state", "contracts", "drop_zone", "releases"):
            value: Path | None = getattr(self, name)
            if value is not None:
                base = Path.cwd() if name in given else root
                # Not Path.resolve: a symbolic link to a larger disk stays what the user called it.
                self.__dict__[name] = Path(os.path.normpath(base / value.expanduser()))
        return self

    @property
    def root(self) -> Path:
        """The project's root folder, where ``assets``, ``sensors`` and ``dbt_project`` lie."""
        return project_root()

    @property
    def ui_address(self) -> str:
        """Where the Dagster UI is reached, without a slash at the end."""
        return self.ui_url or f"http://127.0.0.1:{self.port}"

    @property
    def portal_address(self) -> str:
        """Where the portal is reached, without a slash at the end: what links to it begin with."""
        return self.portal_url or f"http://127.0.0.1:{self.portal_port}"

    @property
    def drop_path(self) -> Path:
        """Where deliveries arrive."""
        return self.drop_zone or self.state / "drop"

    @property
    def releases_path(self) -> Path:
        """Where releases of open data are written."""
        return self.releases or self.state / "releases"

    @property
    def dagster_home(self) -> Path:
        """Dagster's home folder; its ``dagster.yaml`` is generated here."""
        return self.state / "dagster"

    @property
    def spool_path(self) -> Path:
        """Copies of deliveries that were fetched (API, SQL) and parts that are still being written."""
        return self.state / "spool"

    @property
    def demo_path(self) -> Path:
        """The synthetic department and its answer key."""
        return self.state / "demo"

    @property
    def dbt_target_path(self) -> Path:
        """What dbt compiles."""
        return self.state / "dbt"


def load_settings() -> Settings:
    """Settings from the environment. Raises ``UserError`` naming each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [
            # The value stays out of the message: it may be a URL with a password.
            f"DOPA_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg'].lower()}"
            for item in error.errors(include_input=False)
        ]
        raise UserError(f"The environment is wrong: {'; '.join(wrong)}.") from None
