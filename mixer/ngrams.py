"""A text as hashes: of its words, in order, with where each stands, and of its n-grams.

Case, punctuation, width, line breaks, invisible characters and the marks of lists (`A.`, `2)`, `(iv)`, `③`) make no
difference. A hash carries in its low bits how much its word can prove, so that whoever compares two texts never looks
at the words again.
"""

import re
import unicodedata
from collections.abc import Iterator

import numpy as np
import xxhash

SEED_WORDS, SEED_CHARS = 5, 8
"""Length of an n-gram that begins with a word, and with a CJK character."""

_CIRCLES = ((0x2460, 20), (0x2776, 10), (0x2780, 10), (0x278A, 10))
"""First code point and number of circled numerals, which would stick to the word behind them."""
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_NUMERAL = r"(?:\d\d?|i{1,3}|i?[vx]|vi{1,3})"
_MARK = rf"[ \t]{{0,20}}[(\[]?{_NUMERAL}(?:[)\]、]|[.:](?![0-9a-z]))"
_BETWEEN = rf"[(\[]{_NUMERAL}[)\]]"
"""What numbers an entry of a list: anything usual where a line begins, elsewhere a numeral in brackets."""
_LINE_MARK = re.compile(_MARK)
_TOKEN = re.compile(rf"[^\W_{_CJK}]+|[{_CJK}]|\n(?:{_MARK})?|{_BETWEEN}")
"""The words of `mixer.dedup.words`, line ends with the mark behind them, and marks in a line."""
_ASCII_TOKEN = re.compile(rf"[a-z0-9]+|\n(?:{_MARK})?|{_BETWEEN}")
"""The same for normalised ASCII, at twice the speed."""
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
_CIRCLED = {first + i: f"({i + 1})" for first, count in _CIRCLES for i in range(count)}
_HIDDEN = re.compile(f"[{''.join(map(chr, _INVISIBLE | _CIRCLED))}]")
_STOP_WORDS = """
    a about above accurate according after all also an and another any answer are as at be because been before best
    between both but by can choice choose context correct correctly could describe describes did do does each either
    except explain explains false find following for from given had has have he her him his how i if in incorrect
    information into is it its least likely many may might more most much must my no none not of on one only option
    options or other our out over passage question questions refers respectively s select shall she should so some
    statement statements such than that the their them then there these they this those to true two under up using was
    we were what when where which while who whom whose why will with would yes you your
    下 列 关 于 叙 述 说 法 正 确 错 误 的 是 了 在 和 与 有 不 为 以 及 或 中 一 个 项 选 其 这 那 由 可 能"""
_STOP = frozenset(_STOP_WORDS.split())
"""Words that every text or every exam has. They count as words, and prove nothing."""
_MARK_WORDS = frozenset("abcdefghij") | {"choice", "option"}
_SHIFTS = (-1, 1, -2, 2)
"""A word added or missing moves what follows it; two are followed on either side."""
_MOST_BITS = 26
_TELLING, _MOST_PARTS = 2, 16
"""An n-gram needs that many telling words; one in more parts is a template, and points at none of them."""
_BLOCK = 1 << 20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_WEIGHT = np.array([2, 2, 1, 1])
_TELLS = np.array([0, 2, 0, 1])


class _Codes(dict[str, int]):
    """Word -> 62 bits of hash, then one bit for a CJK character and one for a telling word; 0 for what is left out."""

    def __missing__(self, word: str) -> int:
        if len(self) > 1_000_000:
            self.clear()
        value = self[word] = _code(word)
        return value


def _code(word: str) -> int:
    is_cjk = word > "\u3000" and re.match(f"[{_CJK}]", word) is not None
    # Single letters number the choices, and are an article; `Option A` is such a mark: nothing hangs on them.
    if word[0] in "\n([" or word in _MARK_WORDS:
        return 0
    tells = word not in _STOP and (is_cjk or len(word) > 1)
    return xxhash.xxh3_64_intdigest(word.encode()) & ~3 | 2 * is_cjk | tells


_codes = _Codes()


def tokens(text: str) -> np.ndarray:
    """A hash for each word and line end of the text, in order; uint64. 0 is a line end, or a mark of a list."""
    found = []
    for block, begins_line in _blocks(text):
        normal = _normal(block)
        if begins_line and (mark := _LINE_MARK.match(normal)):
            normal = normal[mark.end() :]
        run = (_ASCII_TOKEN if normal.isascii() else _TOKEN).findall(normal)
        found.append(np.fromiter(map(_codes.__getitem__, run), np.uint64, len(run)))
    return np.concatenate(found)


def offsets(text: str) -> np.ndarray:
    """(tokens, 2): from which to which character of the text each of its `tokens` stands."""
    spans: list[tuple[int, int]] = []
    start = 0
    for line in text.split("\n"):
        spans += [(start + a, start + b) for a, b in _line_offsets(line)]
        start += len(line) + 1
        spans.append((start - 1, start))
    return np.array(spans[:-1], np.int64).reshape(-1, 2)


def _line_offsets(line: str) -> list[tuple[int, int]]:
    normal = _normal(line)
    mark = _LINE_MARK.match(normal)
    found = [match.span() for match in _TOKEN.finditer(normal, mark.end() if mark else 0)]
    if len(normal) == len(line) and normal == line.lower():
        return found
    # Character by character, each with its accents, unless normalising the whole does something else.
    starts = [i for i, char in enumerate(line) if i == 0 or not unicodedata.combining(char)]
    ends = [*starts[1:], len(line)]
    pieces = [_normal(line[a:b]) for a, b in zip(starts, ends, strict=True)]
    if "".join(pieces) != normal:
        return [(0, len(line))] * len(found)
    owner = [i for i, piece in enumerate(pieces) for _ in piece]
    return [(starts[owner[a]], ends[owner[b - 1]]) for a, b in found]


def _normal(text: str) -> str:
    if not text.isascii():
        if _HIDDEN.search(text):
            text = text.translate(_CIRCLED | _INVISIBLE)
        text = unicodedata.normalize("NFKC", text)
    return text.lower()


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """The text in blocks, so that a book is never a list of all its words at once, and whether each begins a line.

    Cut between lines; between words where a line is as long as a block.
    """
    start, begins_line = 0, True
    while len(text) - start > _BLOCK:
        places = (text.rfind(gap, start + 1, start + _BLOCK) for gap in "\n ")
        space = next((place for place in places if place > 0), start + _BLOCK - 1)
        yield text[start : space + 1], begins_line
        start, begins_line = space + 1, text[space] == "\n"
    yield text[start:], begins_line


def grams(run: np.ndarray) -> np.ndarray:
    """The hash of the n-gram that begins at each token; 0 where the text ends before it does."""
    cjk = run & np.uint64(2) != 0
    found = rolled(run, SEED_WORDS)
    return np.where(cjk, rolled(run, SEED_CHARS), found) if cjk.any() else found


def rolled(run: np.ndarray, size: int) -> np.ndarray:
    """The hash of the `size` tokens that begin at each; 0 where the text ends before they do."""
    rolled = np.zeros(len(run), np.uint64)
    view = rolled[: max(0, len(run) - size + 1)]
    for shift in range(size if len(view) else 0):
        view *= _FACTOR
        view += run[shift : shift + len(view)]
    return rolled ^ (rolled >> np.uint64(29))


def ragged(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start + 1, ... for each start, as many as its count, one after the other."""
    ends = np.cumsum(counts)
    return np.repeat(starts - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)


def summed(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Sums of values[bounds[i]:bounds[i + 1]]."""
    total = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(total[bounds[1:]] - total[bounds[:-1]])


def lengths(run: np.ndarray) -> np.ndarray:
    """How many tokens the n-gram that begins at each token has."""
    return np.where(run & np.uint64(2) != 0, SEED_CHARS, SEED_WORDS)


def weights(run: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each token counts, and what of that tells anything, in half words: a CJK character is one, a word two."""
    bits = (run & np.uint64(3)).astype(np.intp)
    return _WEIGHT[bits], _TELLS[bits]


def changes(*columns: np.ndarray) -> np.ndarray:
    """Where a row differs from the one before it in any column; the first one does."""
    new = np.ones(len(columns[0]), bool)
    new[1:] = False
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


def aligned(run: np.ndarray, here: np.ndarray, words: np.ndarray, owner: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """For each word wanted, where in the text it stands; -1 where it does not stand near the place expected.

    A word that is off its place counts only beside a neighbour that is off as far: "of" and "the" stand everywhere.

    Args:
        run: The text.
        here: Where in it each word is expected; may lie outside.
        words: The words wanted, of one comparison after another.
        owner: Number of the comparison that each belongs to.
        exact: Of each, whether it must stand just there.
    """
    stands = np.where(same(run, here, words), here, -1)
    joined = owner[1:] == owner[:-1]
    for shift in _SHIFTS:
        alike = same(run, here + shift, words)
        pairs = alike[1:] & alike[:-1] & joined
        paired = np.zeros(len(alike), bool)
        paired[1:] |= pairs
        paired[:-1] |= pairs
        stands = np.where(paired & (stands < 0) & ~exact, here + shift, stands)
    return stands


def same(run: np.ndarray, here: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Whether each word wanted stands at its place, which may lie outside of the text."""
    return np.asarray((here >= 0) & (here < len(run)) & (run.take(here, mode="clip") == words))


class Lookup:
    """Sorted hashes, behind a table that turns nearly everything else away at once."""

    def __init__(self, keys: np.ndarray) -> None:
        bits = min(_MOST_BITS, max(10, (16 * len(keys)).bit_length()))
        self._keys, self._shift = keys, np.uint64(64 - bits)
        held = np.zeros(1 << bits, bool)
        held[keys >> self._shift] = True
        # A bit each: what stays in the cache is found several times faster.
        self._table = np.packbits(held, bitorder="little")

    def __call__(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which of the hashes are among the keys, the first key equal to each, and how many are."""
        slot = hashes >> self._shift
        at = np.flatnonzero(self._table[slot >> np.uint64(3)] >> (slot & np.uint64(7)) & np.uint64(1))
        if not len(at):
            return at, at, at
        left = np.searchsorted(self._keys, hashes[at])
        count = np.searchsorted(self._keys, hashes[at], "right") - left
        return at[count > 0], left[count > 0], count[count > 0]


def rare(words: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams that point at few parts, sorted, and where each begins; one place for each part."""
    part, place = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)), np.arange(len(words))
    stop = place + lengths(words)
    telling = np.concatenate([[0], np.cumsum(weights(words)[1])])
    keep = np.flatnonzero(stop <= bounds[part + 1])
    keep = keep[telling[stop[keep]] - telling[keep] >= 2 * _TELLING]
    found = grams(words)[keep]
    order = np.lexsort((keep, part[keep], found))
    found, place = found[order], keep[order]
    first = changes(found, part[place])
    found, place = found[first], place[first]
    starts = np.flatnonzero(changes(found))
    count = np.diff(np.append(starts, len(found)))
    few = np.repeat(count <= _MOST_PARTS, count)
    return found[few], place[few]
