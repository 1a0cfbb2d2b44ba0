"""What exists: one Dagster asset for each dataset, model and publication.

Thin by intent: what an asset does is in :mod:`dopa_pipelines`; here is only how it looks to Dagster. Contracts, publications and
agreements lie in the folders beside.
"""
