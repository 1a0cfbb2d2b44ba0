"""Thai text, numbers and dates as vectorised Polars expressions.

Everything here is a function from expressions to expressions and knows no contract. What a value must be is enforced in
:mod:`dopa_pipelines.ingest`; Python-level date arithmetic for people's eyes is :mod:`dopa_pipelines.thai.calendar`.
"""
