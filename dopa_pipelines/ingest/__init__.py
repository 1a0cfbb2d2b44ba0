"""From a delivery to ``raw.<dataset>`` and ``quarantine.<dataset>``: enforce the contract, load in one transaction.

Rows of a delivery = rows loaded + rows quarantined, always; a delivery that is refused as a whole changes nothing.
Reading silo forms is :mod:`dopa_pipelines.sources`; shaping data after the load is dbt's.
"""

from dopa_pipelines.ingest.arrivals import arrivals
from dopa_pipelines.ingest.deliver import ingest
from dopa_pipelines.ingest.load import Delivery
from dopa_pipelines.ingest.replay import replay

__all__ = ["Delivery", "arrivals", "ingest", "replay"]
