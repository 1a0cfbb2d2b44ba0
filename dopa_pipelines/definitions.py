"""The Dagster code location, on one screen. What exists is in ``assets``, when it runs in ``sensors``.

The only module of the engine's package that imports Dagster.
"""

import dagster as dg

from assets.catalogue import catalogue_assets
from assets.platform import platform_resource
from assets.proof import lineage_proof
from assets.publications import publication_assets
from assets.sources import source_assets
from assets.warehouse import model_assets
from dopa_pipelines.contracts import load_contracts
from dopa_pipelines.lineage.classes import FILE, read_file
from dopa_pipelines.publishing import load_publications
from dopa_pipelines.settings import Settings, load_settings
from dopa_pipelines.transform import Project
from sensors.alerts import alert_sensors
from sensors.deliveries import delivery_sensor
from sensors.housekeeping import housekeeping_sensor
from sensors.lineage import events_asset, lineage_sensor
from sensors.schedules import EVERYTHING, jobs_and_schedules


def build_definitions(settings: Settings) -> dg.Definitions:
    """The whole graph. A contract or publication that is wrong is left out and logged; ``dopa check`` says where."""
    contracts = load_contracts(settings.contracts)
    publications = load_publications(settings.contracts / "open_data")
    for problem in [*contracts.problems, *publications.problems]:
        dg.get_dagster_logger("dopa").error(str(problem))
    jobs, schedules = jobs_and_schedules(settings, publications.publications)
    events, forwarded = events_asset()
    # As last derived; a run brings it up to date, the next load of the definitions shows it.
    classes = read_file(settings.state / FILE)
    return dg.Definitions(
        assets=[
            *source_assets(contracts, settings.portal_address, classes),
            *model_assets(Project(settings), settings.portal_address, classes),
            *publication_assets(publications.publications, settings.portal_address, classes),
            *catalogue_assets(settings, publications.publications),
            events,
        ],
        asset_checks=[forwarded],
        jobs=[EVERYTHING, lineage_proof, *jobs],
        schedules=schedules,
        sensors=[delivery_sensor(contracts), housekeeping_sensor(), lineage_sensor(), *alert_sensors()],
        resources={"platform": platform_resource},
        executor=dg.in_process_executor,
    )


defs = build_definitions(load_settings())
