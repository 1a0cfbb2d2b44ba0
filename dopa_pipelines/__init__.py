"""The engine of the department's data platform.

Everything here can be used and tested without Dagster; only ``definitions.py`` imports it. Each room imports
only rooms below it (``import-linter`` holds the layers), with ``settings`` and ``errors`` at the bottom.
"""
