"""A synthetic department: the real forms of eleven silos, with known defects and the answer key.

For trying, testing and showing the platform. What it makes is invented, but for the areas (``geothai``). It
uses none of the platform's own parsing or enforcement, so that the answer key is an independent witness.
"""

from dopa_pipelines.demo.defects import AnswerKey, Defect, Totals
from dopa_pipelines.demo.department import generate, hotel_rows, linkage_rows
from dopa_pipelines.demo.register import DAY
from dopa_pipelines.demo.systems import serve_linkage_api, write_departmental

__all__ = [
    "DAY",
    "AnswerKey",
    "Defect",
    "Totals",
    "generate",
    "hotel_rows",
    "linkage_rows",
    "serve_linkage_api",
    "write_departmental",
]
