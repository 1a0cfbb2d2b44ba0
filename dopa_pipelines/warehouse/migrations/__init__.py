"""Migrations of the platform's own tables, run by ``dopa_pipelines.warehouse.migrate``; never by hand.

A migration finds in ``context.config.attributes`` ``roles``: what each ``Role`` is called on this server (to
be quoted), or ``None`` where every role is the URL's user and there is nothing to grant; and ``namespace``,
OpenLineage's name for the server.
"""
