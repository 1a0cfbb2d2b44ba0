"""The web catalogue and open-data portal: pages for reading, and nothing else.

Belongs here: routes, pages, their addresses, reading for them. Does not belong here: what a trace or a release is (the rooms
below), and any way to change something. What leaves are names of datasets and columns and what describes them, and files that
were published; never a value of a row. Everything is read as ``Role.READER``.
"""
