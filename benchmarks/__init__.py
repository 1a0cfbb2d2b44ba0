"""Measures against peers in the same run, on the same machine: ``make bench``.

Each module measures one thing and returns rows for the table; nothing here is a test, and no test depends on a clock.
"""
