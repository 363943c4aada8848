"""The subcommands of `mixer`: parse, call one function, print; a file a group, found by `mixer/cli.py`."""
