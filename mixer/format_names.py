"""The formats of exports, where commands can name them without loading what writes them."""

from typing import Literal, get_args

FormatName = Literal[
    "megatron",
    "mds",
    "litdata",
    "olmo",
    "nanotron",
    "parquet",
    "arrow",
    "webdataset",
    "torchtitan",
    "llmc",
    "jsonl",
]
FORMATS: tuple[str, ...] = get_args(FormatName)
