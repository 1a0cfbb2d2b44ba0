"""One file a revision, ``r<revision>_<what>.py``, linear; a published one is never changed."""
