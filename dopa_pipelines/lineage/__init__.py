"""Where data came from and where it went: names of datasets, the read model of the recorded writes, traces,
OpenLineage.

Nothing is imported here, so that ``dopa trace`` pays for neither OpenLineage nor Dagster.
"""
