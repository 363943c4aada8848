"""Hugging Face data sets, streamed from the hub or from a local folder in the same layout."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from mixer.errors import SourceError
from mixer.readers.rows import Part, page
from mixer.readers.streams import damaged
from mixer.recipe.sources import HubSource
from mixer.types import Failure, Page, Skipped

_NETWORK_LIBRARIES = {"aiohttp", "httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "requests", "urllib3"}
_OFFLINE = "connect this machine to the hub, or download the data set and give its folder as `path`"


def commit(where: str, source: HubSource) -> str:
    """The commit that the source's revision stands for now.

    Args:
        where: Place in the recipe, for the message.
        source: Its `path` is a hub id.

    Raises:
        SourceError: The hub cannot be reached, or has no such data set or revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    named = f"`{source.path}`" + (f" at `{source.revision}`" if source.revision else "")
    try:
        sha = HfApi().dataset_info(source.path, revision=source.revision, timeout=30).sha
    except HfHubHTTPError as error:
        problem = f"{where}: not on the hub: got {named}, expected a data set we may read ({type(error).__name__})"
        hint = "look for a spelling mistake; a gated or private data set needs `hf auth login`"
        raise SourceError(problem, hint=hint) from error
    except Exception as error:
        problem = f"{where}: cannot reach the hub: got {_short(error)} for {named}, expected an answer"
        raise SourceError(problem, hint=_OFFLINE) from error
    return str(sha)


def _is_network(error: BaseException) -> bool:
    """Whether the hub or the way to it failed, and not the data; its HTTP library changes between versions."""
    home = type(error).__module__.partition(".")[0]
    return isinstance(error, ConnectionError | TimeoutError) or home in _NETWORK_LIBRARIES


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def rows(place: str, name: str, source: HubSource, part: Part) -> Iterator[Page | Skipped | Failure]:
    """A Page or a Failure for each row of ours.

    Args:
        place: A local folder, or `id@commit`.
        name: What ids begin with.
        source: Its `config`, `folder`, `split` and `columns` are used.
        part: Which rows are ours.

    Raises:
        SourceError: The hub cannot be reached; the rows would depend on the network otherwise.
    """
    stream = _stream(place, name, source)
    for number in count():
        try:
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:
            if _is_network(error):
                problem = f"{name}: the hub went away at row {number}: got {_short(error)}, expected more rows"
                raise SourceError(problem, hint=_OFFLINE) from error
            if part.stripe == 0:
                yield damaged(name, error)
            return
        if part.owns(number):
            yield page(row, f"{name}#{number}", source)


def _stream(place: str, name: str, source: HubSource) -> Iterator[Any]:
    import datasets

    path, _, revision = (place, "", "") if Path(place).is_absolute() else place.partition("@")
    try:
        loaded = datasets.load_dataset(
            path,
            name=source.config,
            data_dir=source.folder,
            split=source.split,
            revision=revision or None,
            streaming=True,
        )
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        problem = f"{name}: cannot open the data set: got {_short(error)}, expected split `{source.split}`"
        hint = "`config` and `split` must be names that the data set has; folders need .jsonl or .parquet files"
        raise SourceError(problem, hint=hint) from error
    return iter(loaded)
