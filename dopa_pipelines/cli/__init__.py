"""``dopa``, the command line for people: a module for each command group. Work is done in the rooms below, not here."""
