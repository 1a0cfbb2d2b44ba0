"""The demo's fixtures, which are the integration tests' own."""

from tests.integration.conftest import _made, demo, own_demo

__all__ = ["_made", "demo", "own_demo"]
