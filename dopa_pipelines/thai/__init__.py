"""Thai text, numbers and dates as vectorised Polars expressions.

Nothing here knows a contract: what a value must be is enforced in :mod:`dopa_pipelines.ingest`.
"""

from zoneinfo import ZoneInfo

BANGKOK = ZoneInfo("Asia/Bangkok")
"""The department's own time: days begin and schedules run by it."""
