"""Quality: the rules of contracts measured, scores by the national standard, incidents, profiles.

What is measured, how it is judged and what is kept of it belong here. Rejecting rows is the ingest's; showing checks is
Dagster's; personal values are in nothing that this room keeps.
"""
