"""``dopa portal``: the catalogue and the open data as web pages."""

from __future__ import annotations

import signal
import socket
from typing import Annotated

import typer

from dopa_pipelines.cli.console import err


def add_to(app: typer.Typer) -> None:
    app.command("portal")(portal_command)


def portal_command(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default DOPA_PORTAL_PORT or 3001")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; only this machine reaches the default")] = "127.0.0.1",
) -> None:
    """Serve the portal until Ctrl-C: the catalogue, traces with links, released files. It changes nothing."""
    import uvicorn

    from dopa_pipelines.portal.app import create_app
    from dopa_pipelines.settings import load_settings
    from dopa_pipelines.warehouse.ports import require_free_port

    settings = load_settings()
    if port is not None:
        settings = settings.model_copy(update={"portal_port": port})
    require_free_port(settings.portal_port, host, "DOPA_PORTAL_PORT")
    # uvicorn ends in good order and then repeats the signal, which is to end nothing more.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    class Server(uvicorn.Server):
        """Says where it is once it listens."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                err.print(f"portal: [bold]{settings.portal_address}[/]  (Ctrl-C stops it)")

    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=settings.portal_port,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Behind a proxy, its address is not taken for the visitor's: nobody is told apart here.
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )
    Server(config).run()
