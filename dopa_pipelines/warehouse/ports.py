"""Network ports that the platform listens on."""

from __future__ import annotations

import socket

from dopa_pipelines.errors import UserError


def require_free_port(port: int, host: str = "127.0.0.1", setting: str = "DOPA_PORT") -> None:
    """Raise ``UserError`` where something listens on ``port`` of ``host`` already, or we may not; ``setting`` names another."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT after a restart counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise UserError(f"This account may not listen on port {port}; set {setting} to a port from 1024 on.") from None
        except OSError:
            raise UserError(
                f"Port {port} on {host} is taken by another program; stop it, or set {setting} to a free one."
            ) from None
