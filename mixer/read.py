"""From a source in the recipe to units of work, and from a unit to its rows.

The slicing follows from the files alone, so the output cannot depend on the number of workers. A large file is read
by several tasks, each skipping the others' rows: they all decompress it, which costs little beside the cleaning.
A source with `max_documents` is one unit, because "the first rows" has no other exact meaning; its price is that one
task reads it.
"""

import glob
import os
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

import xxhash

from mixer.errors import SourceError
from mixer.readers import Row, html, hub, parquet, rows, tokens
from mixer.readers.rows import Part, printable
from mixer.readers.streams import compression
from mixer.recipe.sources import HtmlSource, HubSource, PageSource, ParquetSource, TextSource, TokensSource
from mixer.types import Unit

STRIPE_BYTES = 8 * 2**20
"""Plain bytes of a large file that one task is given."""
GROUP_BYTES = 8 * 2**20
GROUP_FILES = 512
MAX_STRIPES = 64
AnyRead = PageSource | TokensSource
_COMPRESSION = 8
"""Bytes of text that one compressed byte stands for, when tasks are cut."""
_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class _File:
    """One input file: how much text it holds, about, and how many tasks share it."""

    path: str
    name: str
    weight: int
    stripes: int
    digest: str


def read(unit: Unit, source: PageSource, *, limit: int | None = None) -> Iterator[Row]:
    """Every row of the unit exactly once: a Page, or the reason why there is none.

    Args:
        unit: One of `units(...)`.
        source: The source that it was made from.
        limit: Most rows to read, of any outcome; `max_documents` holds too.

    Raises:
        SourceError: The hub cannot be reached. Bad content never raises.
    """
    limits = [bound for bound in (limit, source.max_documents) if bound is not None]
    part = Part(unit.stripe, unit.stripes)
    files = zip(unit.files, unit.names, strict=True)
    every = chain.from_iterable(rows(path, name, source, part) for path, name in files)
    return islice(every, min(limits, default=None))


def units(name: str, source: AnyRead, base: Path, *, cache: MutableMapping[str, str] | None = None) -> list[Unit]:
    """The slices in which a source is read, the same for the same files on any machine.

    Args:
        name: Name of the source, for units and messages.
        source: What to read; its paths are relative to `base`.
        base: Folder of the recipe.
        cache: File hashes by path, size, time of change and inode; filled, for the caller to keep.

    Raises:
        SourceError: A pattern matches no file, a file cannot be opened or lacks its index, or the hub does not know the
            data set.
    """
    known = cache if cache is not None else {}
    try:
        if isinstance(source, HubSource):
            return [_hub_unit(name, source, base, known)]
        found = _matches(name, source, base)
        if isinstance(source, TokensSource):
            for path, _ in found:
                tokens.check_beside(f"sources.{name}.path", path, source)
        files = [_file(path, shown, source, known) for path, shown in found]
    except OSError as error:
        problem = f"sources.{name}.path: cannot read: got {error.strerror}, expected to open `{error.filename}`"
        raise SourceError(problem, hint="check its permissions, or leave it out of the pattern") from error
    if source.max_documents is not None:
        return _striped(name, files, 1)
    return [unit for group in _groups(files) for unit in _striped(name, group, group[0].stripes)]


def _striped(name: str, files: Sequence[_File], stripes: int) -> list[Unit]:
    digest = _combined([(file.name, file.digest) for file in files])
    paths, names = tuple(file.path for file in files), tuple(file.name for file in files)
    return [Unit(name, paths, names, digest, stripe, stripes) for stripe in range(stripes)]


def _groups(files: Sequence[_File]) -> Iterator[list[_File]]:
    """Neighbours together until the group is large enough; a file for several tasks stays alone."""
    group: list[_File] = []
    for file in files:
        weight = sum(member.weight for member in group) + file.weight
        if group and (file.stripes > 1 or weight > GROUP_BYTES or len(group) == GROUP_FILES):
            yield group
            group = []
        if file.stripes > 1:
            yield [file]
        else:
            group.append(file)
    if group:
        yield group


def _file(path: str, shown: str, source: AnyRead, cache: MutableMapping[str, str]) -> _File:
    size = Path(path).stat().st_size
    if isinstance(source, TokensSource):
        files = (Path(path), *tokens.beside(path, source))
        digest = _combined([(each.name, _digest(str(each), cache)) for each in files])
        return _File(path, shown, size, 1, digest)
    packed = isinstance(source, ParquetSource) or bool(compression(path))
    weight = size * _COMPRESSION if packed else size
    return _File(path, shown, weight, _stripes(path, weight, source), _digest(path, cache))


def _stripes(path: str, weight: int, source: PageSource) -> int:
    wanted = max(1, -(-weight // STRIPE_BYTES))
    if wanted == 1 or _is_one_row(path, source):
        return 1
    return min(wanted, MAX_STRIPES, parquet.blocks(path) if isinstance(source, ParquetSource) else MAX_STRIPES)


def _is_one_row(path: str, source: PageSource) -> bool:
    if isinstance(source, HtmlSource):
        return html.layout(path) == "page"
    return isinstance(source, TextSource) and source.split == "file"


def _matches(name: str, source: AnyRead, base: Path) -> list[tuple[str, str]]:
    """Path and shown name of each file, by name; a file that several patterns match is read once.

    The shown name leaves out leading `../`, unless two files would then look the same.
    """
    patterns = (source.path,) if isinstance(source.path, str) else source.path
    found = {match for pattern in patterns for match in matches(f"sources.{name}.path", pattern, base)}
    ordered: dict[str, tuple[str, str]] = {}
    for match in sorted(found):
        path = base.absolute() / match
        ordered.setdefault(str(path.resolve()), (str(path), printable(match)))
    short = [shown.removeprefix("../" * shown.count("../")) for _, shown in ordered.values()]
    if len(set(short)) < len(short):
        return list(ordered.values())
    return [(path, shown) for (path, _), shown in zip(ordered.values(), short, strict=True)]


def matches(spot: str, pattern: str, base: Path) -> list[str]:
    """Files that a pattern at a spot of the recipe matches, as it spells them: relative to the recipe, or absolute.

    Raises:
        SourceError: There is none.
    """
    expanded = str(Path(pattern).expanduser())
    # A file may have brackets or a star in its name.
    found = [expanded] if (base / expanded).is_file() else glob.glob(expanded, root_dir=base, recursive=True)  # noqa: PTH207
    files = [Path(os.path.normpath(match)).as_posix() for match in found if (base / match).is_file()]
    if not files:
        problem = f"{spot}: no file: got `{pattern}` in {base.absolute()}, expected at least one match"
        raise SourceError(problem, hint=_remedy(base / expanded, pattern))
    return files


def _remedy(target: Path, pattern: str) -> str:
    if target.is_dir():
        return f"this is a folder; write `{pattern.rstrip('/')}/**/*` for all files in it"
    fixed = next(folder for folder in target.parents if not glob.has_magic(str(folder)))
    if not fixed.is_dir():
        return f"the folder {fixed} does not exist; a path is relative to the recipe"
    return "a path is relative to the recipe; `*` matches within a folder, `**/` in folders at any depth"


def _hub_unit(name: str, source: HubSource, base: Path, cache: MutableMapping[str, str]) -> Unit:
    folder = base.absolute() / Path(source.path).expanduser()
    settings = [("config", source.config or ""), ("split", source.split)]
    if folder.is_dir():
        contents = [(shown, _digest(str(folder / shown), cache)) for shown in _visible(folder)]
        return Unit(name, (str(folder),), (source.path,), _combined(settings + contents))
    sha = hub.commit(f"sources.{name}.path", source)
    return Unit(name, (f"{source.path}@{sha}",), (source.path,), _combined([*settings, (source.path, sha)]))


def _visible(folder: Path) -> list[str]:
    """All files below a folder but those of version control and other hidden ones."""
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in inside if not any(part.startswith(".") for part in path.parts))


def _combined(parts: Sequence[tuple[str, str]]) -> str:
    text = "".join(f"{len(key)}:{key}={len(value)}:{value};" for key, value in parts)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogateescape"))


def _digest(path: str, cache: MutableMapping[str, str]) -> str:
    stat = Path(path).stat()
    key = f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"
    if key not in cache:
        cache[key] = _hashed(path, key)
    return cache[key]


@lru_cache(maxsize=2**16)
def _hashed(path: str, key: str) -> str:
    """Hash of a file's content; the key makes a changed file a new question."""
    state = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()
