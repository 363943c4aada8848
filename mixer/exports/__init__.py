"""The training mixture in the formats of other trainers: a file a format, behind the interface of `target.py`."""
