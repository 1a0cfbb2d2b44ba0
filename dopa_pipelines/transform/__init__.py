"""Running dbt: the project's manifest, and building models in this process.

What a model says is in ``dbt_project/``; when it is built is Dagster's or a person's decision.
"""

from dopa_pipelines.transform.project import Model, NodeResult, Project, Test

__all__ = ["Model", "NodeResult", "Project", "Test"]
