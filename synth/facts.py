"""Numbers, units and names that an answer states: whether its page states them too, and whether two answers agree.

Numbers are compared by value: `1,200`, `twelve hundred`, `1.2 thousand` and `一千二百` are one number. Signs are left
aside when facts are checked (a dash before a number is most often a range), and read when answers are compared.
"""

import logging
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from synth.candidate import Check, Pair
from synth.evidence import equations, is_sum, missing_names, plain, plain_words

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_ONES += " seventeen eighteen nineteen"
_FIRSTS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth"
_FIRSTS += " fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {"hundredth": 100, "thousandth": 1000, "millionth": 10**6, "mn": 10**6, "bn": 10**9}
_WORDS = {word: i for names in (_ONES, _FIRSTS) for i, word in enumerate(names.split())}
_WORDS |= {form: 10 * i for i, w in enumerate(_TENS.split(), 2) for form in (w, f"{w[:-1]}ieth")}
_NAMED = "|".join(sorted(_WORDS | _SCALES, key=len, reverse=True))
_ZH_ONES = {char: i for i, char in enumerate("零一二三四五六七八九")} | {"\u3007": 0, "两": 2}
_ZH_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_ZH = "".join([*_ZH_ONES, *_ZH_SCALES])
_PART = "\u00bc-\u00be\u2150-\u215e"
_FIGURE = rf"(?:\d{{1,3}}(?:[, ]\d{{3}}){{1,30}}+(?!\d)|\d{{1,300}}+)(?:\.\d{{1,300}}+)?[{_PART}]?|[{_PART}]"
_NUMBER = re.compile(
    rf"(?:百分之)?(?:(?P<zh>(?:(?:{_FIGURE})[十百千万萬亿億]++|[{_ZH}]++)++(?:点[{''.join(_ZH_ONES)}]++)?)"
    rf"|(?P<figure>{_FIGURE})(?P<scales>(?:[ -]?(?:{'|'.join(_SCALES)})s?(?![a-z]))*+)"
    rf"|(?<![a-z0-9])(?P<named>(?:{_NAMED})(?:[ -](?:and )?(?:{_NAMED})(?![a-z]))*+)s?(?![a-z]))"
)
_ZH_PIECE = re.compile(rf"{_FIGURE}|[{_ZH}]")
_UNIT_LINES = """
% percent per_cent pct; $ dollar dollars usd 美元; € euro euros 欧元; £ pound pounds 英镑; ¥ yuan rmb 元 人民币;
km kilometre kilometres kilometer kilometers 公里 千米; m metre metres meter meters 米; cm 厘米 公分; mm 毫米;
mile miles mi 英里; feet foot ft 英尺; kg kilogram kilograms 公斤 千克; g gram grams 克; tonne tonnes ton tons 吨;
hour hours 小时; minute minutes min 分钟; week weeks 星期; day days 天; month months 个月; °c 摄氏度; °f 华氏度;
km² km2 square_kilometres square_kilometers 平方公里 平方千米; m² m2 square_metres square_meters 平方米
"""
_UNITS = {n.replace("_", " "): line.split()[0] for line in _UNIT_LINES.split(";") for n in line.split()}
_UNIT = re.compile(rf"[ -]?({'|'.join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))})(?![a-z0-9])")
_MEASURES = set("个個年月日天岁次人位名种條条座米元吨所家部项届期世倍时周章集回场支艘")
_LOOSE = {"one", "first", "second", "seconds", "一", "千万", "万一"}
_MOST_NUMBERS = 200_000
CONSTANTS = frozenset(map(Fraction, (*range(11), 12, 24, 52, 60, 100, 365, 366, 1000, 3600)))
"""Numbers that a calculation may bring along: small counts, and conversions of time and percent."""
_MARKER = re.compile(r"^\s*(?:step\s*)?\d+[.):](?!\d)|\bstep \d+", re.IGNORECASE | re.MULTILINE)
_YES = {"yes", "yeah", "true", "correct", "是", "是的", "对", "对的", "正确"}
_NO = {"no", "false", "incorrect", "不", "不是", "否", "不对", "错", "错误", "没有"}
_CHOICE = re.compile(r"\(?([A-Ha-h])(?:$|[).:\uff09\uff0e\uff1a\u3001]\s*(.*))", re.DOTALL)
_PUNCTUATION = re.compile(r"[\"?;\u3002\u3001\u300a\u300b\u3008\u3009]|[.,:](?!\d)|(?<!\d)!")
_FILLERS = set(plain_words("about around approximately roughly the of a in to from 约 大 共 至 到"))
_FORMULA = re.compile(r"\\[a-zA-Z]+|\$|\^|\u221a|\d\s*[*=]|[a-z]\s*[-+*/=]\s*\w|\d\s*/\s*\d|\)\s*\(")
_TOO_HARD = re.compile(r"\\(?:int|sum|prod|lim|bin)|\d{20}|!|\^\W*(?:\d{3}|\w+\W*\^)|\^ *[{(][^)}]*\^|[)}] *\^\W*\d\d")
_SIGNED = re.compile(r"[+*^=<>!\\]|\d ?/|\b[a-z] ?-|\d[a-z] ?-|- ?[a-z]\b")
Stated = dict[Fraction, set[str]]


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text.

    Args:
        text: As written, plain.
        values: What it may mean; of these one is enough.
        parts: What else it states to a reader who looks for less: `1.5` in `1.5 million`.
        unit: Canonical unit beside it, empty where none is known.
        loose: Whether it may be no number at all: `one of them`, `second` of time, a numeral inside a Chinese word.
        start: Where it starts in the plain text; `end` is where it and its unit end.
    """

    text: str
    values: tuple[Fraction, ...]
    parts: tuple[Fraction, ...]
    unit: str
    loose: bool
    start: int
    end: int


def numbers(text: str) -> Iterator[Number]:
    """Yield the numbers of a text in order, the first `_MOST_NUMBERS` of them; offsets are in its plain text."""
    flat = plain(text).text
    for match, _ in zip(_NUMBER.finditer(flat), range(_MOST_NUMBERS), strict=False):
        start, end = match.span()
        values, parts = _read(match, flat)
        unit, sign = _UNIT.match(flat, end), flat[max(0, start - 1) : start]
        name = "%" if match.group().startswith("百分之") else sign if sign in "$€£¥" else ""
        name = _UNITS[unit.group(1)] if unit else name
        yield Number(match.group(), values, parts, name, _is_loose(match, flat), start, unit.end() if unit else end)


def _read(match: re.Match[str], flat: str) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    if text := match["zh"]:
        return (_chinese(text),), tuple(map(_figure, re.findall(_FIGURE, text)))
    if text := match["named"]:
        return _named(re.findall(_NAMED, text))
    bare = _figure(match["figure"])
    value = bare * math.prod(_SCALES[scale] for scale in re.findall(_NAMED, match["scales"])[:10])
    parts = {bare, *(Fraction(part) for part in match["figure"].split(" ") if part.isdecimal())}
    # The second year of `1914-18`.
    before = re.search(r"(?<!\d)(\d\d)\d\d[-/]$", flat[max(0, match.start() - 6) : match.start()])
    full = (Fraction(before[1] + match["figure"]),) if before and re.fullmatch(r"\d\d", match["figure"]) else ()
    return (value, *full), tuple(parts - {value})


def _figure(text: str) -> Fraction:
    rest = re.sub(f"[{_PART}]", "", text)
    value = Fraction(rest.replace(",", "").replace(" ", "")) if rest else Fraction(0)
    return value + sum(Fraction(unicodedata.numeric(char)).limit_denominator(10) for char in text[len(rest) :])


def _named(tokens: Sequence[str]) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """Values and parts: `nineteen eighty` is a year, and two halves to who looks for less."""
    groups = [[0, 0]]
    for token in tokens:
        total, current = groups[-1]
        value = _WORDS.get(token)
        if value is None:
            current = (current or 1) * _SCALES[token]
            groups[-1] = [total + current, 0] if _SCALES[token] >= 1000 else [total, current]
        elif current % 100 == 0 or (value < 10 and current % 10 == 0 and current % 100 >= 20):
            groups[-1][1] += value
        else:
            groups.append([0, value])
    found = tuple(Fraction(sum(group)) for group in groups)
    if len(found) == 2 and all(10 <= value < 100 for value in found):
        return (100 * found[0] + found[1],), found
    return found, ()


def _chinese(text: str) -> Fraction:
    whole, _, decimals = text.partition("点")
    tail = Fraction("0." + "".join(str(_ZH_ONES[char]) for char in decimals[:300] or "零"))
    if len(whole) > 1 and set(whole) <= set(_ZH_ONES):
        return int("".join(str(_ZH_ONES[char]) for char in whole[:300])) + tail
    total, section, number = Fraction(0), Fraction(0), Fraction(0)
    for piece in _ZH_PIECE.findall(whole[:300]):
        scale = _ZH_SCALES.get(piece)
        if scale is None:
            number = Fraction(_ZH_ONES[piece]) if piece in _ZH_ONES else _figure(piece)
        elif scale < 10_000:
            section, number = section + (number or 1) * scale, Fraction(0)
        else:
            carried = total if total < scale else Fraction(0)
            added = (carried + section + number or 1) * scale
            total, section, number = total - carried + added, Fraction(0), Fraction(0)
    return total + section + number + tail


def _is_loose(match: re.Match[str], flat: str) -> bool:
    text = match.group()
    if text in _LOOSE:
        return len(text) < len(flat)
    if not match["zh"] or len(text) > 1 or len(flat) == 1:
        return False
    return (
        flat[match.end() : match.end() + 1] not in _MEASURES and flat[max(0, match.start() - 1) : match.start()] != "第"
    )


@lru_cache(maxsize=16)
def stated(text: str) -> Stated:
    """Values in a text, each with the units it has there; an empty unit is none."""
    found: Stated = {}
    for number in numbers(text):
        for value in (*number.values, *number.parts):
            found.setdefault(value, set()).add(number.unit)
    return found


def grounded(pair: Pair, page: str) -> Check:
    """Whether every number, unit and name of the answer and explanation is stated, or a number correctly computed.

    Stated means in the page or the question; numbers of the answer in its quotes or the question, where it has quotes:
    a page states so many numbers that a wrong one is easily among them. Computed means by an equation of the
    explanation that holds and whose numbers are stated, computed or everyday constants. The score is 1; 0.5 if a name
    in the answer is in the page but in no quote; 0 if the pair fails.
    """
    tables = [stated(page), stated(pair.question)]
    explanation = _MARKER.sub(" ", pair.explanation[:10_000])
    accounted, problems = computed(explanation, tables)
    for text in (pair.answer, explanation):
        problems += [f"{why} the page" for number in numbers(text) if (why := _lacks(number, tables, accounted))]
        problems += [f"{name!r} not in the page" for name in missing_names(text, page, pair.question, pair.language)]
    quotes = "\n".join(pair.evidence) or page
    tables = [stated(quotes), tables[1]]
    problems += [f"{why} the quotes" for number in numbers(pair.answer) if (why := _lacks(number, tables, accounted))]
    if problems:
        return Check("grounded", passed=False, score=0.0, detail="; ".join(problems[:3]))
    names = missing_names(pair.answer, quotes, pair.question, pair.language)
    detail = f"not in the quotes: {', '.join(names[:3])}" if names else ""
    return Check("grounded", passed=True, score=0.5 if names else 1.0, detail=detail)


def _lacks(number: Number, tables: Sequence[Stated], accounted: set[Fraction]) -> str:
    """Why a number is not grounded, empty if it is."""
    if number.loose or not accounted.isdisjoint(number.values):
        return ""
    units = set().union(*(table.get(value, set()) for table in tables for value in number.values))
    if not units:
        return f"number {number.text!r} not in"
    if number.unit and not units & {number.unit, ""}:
        return f"unit {number.unit} of {number.text!r} not in"
    return ""


def computed(explanation: str, tables: Sequence[Stated]) -> tuple[set[Fraction], list[str]]:
    """Numbers that equations of the explanation account for, and the equations that do not hold."""
    found: set[Fraction] = set()
    wrong = []
    for sides, values, agree in equations(explanation):
        operands = {value for side in sides if is_sum(side) for value in stated(side)}
        known = {value for value in operands if value in found or any(value in table for table in tables)}
        if known and not agree:
            wrong.append(f"does not hold: {' = '.join(sides)}")
        elif known and operands <= known | CONSTANTS:
            results = {abs(value) for value in values}
            found |= operands | results | {100 * value for value in results if "%" in "".join(sides)}
    return found, wrong


def equal_answers(a: str, b: str, kind: str, choices: Sequence[str] = ()) -> bool:
    """Whether two answers to one question agree; an empty one never does. `choices` tell what a letter means."""
    if kind == "multiple_choice":
        (letter, a), (other, b) = _choice(a, choices), _choice(b, choices)
        if not a or not b:
            return bool(letter) and letter == other
    one, two = _bare(a), _bare(b)
    if not one or not two:
        return False
    if kind == "yes_no":
        return (truth(a) is not None and truth(a) == truth(b)) or one == two
    return one == two or _equal_numbers(a, b) or _equal_formulas(a, b)


def truth(answer: str) -> bool | None:
    """What a yes/no answer says by its first word; None if it does not say."""
    first = re.split(r"[\s.,;:!。]", plain(answer).text, maxsplit=1)[0]
    return True if first in _YES else False if first in _NO else None


def _choice(answer: str, choices: Sequence[str]) -> tuple[str, str]:
    match = _CHOICE.fullmatch(answer.strip())
    if match is None:
        return "", answer
    number = ord(match[1].upper()) - ord("A")
    return match[1].upper(), match[2] or (choices[number] if number < len(choices) else "")


def _bare(text: str) -> str:
    return re.sub(r"^(?:the|an?) (?=\w)", "", " ".join(_PUNCTUATION.sub(" ", plain(text).text).split()))


def _equal_numbers(a: str, b: str) -> bool:
    """Whether both state the same numbers, with the same words about them or, behind them, up to two more."""
    one, two, flat_a, flat_b = list(numbers(a)), list(numbers(b)), plain(a).text, plain(b).text
    if not one or len(one) != len(two) or _SIGNED.search(flat_a) or _SIGNED.search(flat_b):
        return False
    for left, right in zip(one, two, strict=True):
        is_other_unit = left.unit and right.unit and left.unit != right.unit
        is_other_sign = _is_negative(left, flat_a) != _is_negative(right, flat_b)
        if is_other_unit or is_other_sign or set(left.values).isdisjoint(right.values):
            return False
    (head, tail), (other, end) = _around(flat_a, one), _around(flat_b, two)
    return head == other and (tail == end or (not (tail and end) and len(tail + end) <= 2))


def _is_negative(number: Number, flat: str) -> bool:
    return re.search(r"(?:^|[ (=])-$", flat[max(0, number.start - 2) : number.start]) is not None


def _around(flat: str, cut: Sequence[Number]) -> tuple[list[str], ...]:
    """The words before the last number, without numbers, and the words behind it."""
    ends = [0, *(number.end for number in cut)]
    head = "".join(flat[end : number.start] + " " for end, number in zip(ends, cut, strict=False))
    return tuple([word for word in plain_words(text) if word not in _FILLERS] for text in (head, flat[ends[-1] :]))


def _equal_formulas(a: str, b: str) -> bool:
    """Whether two formulas are equal, as math_verify sees them.

    Its time limits are alarm signals, which only the main thread may set, so they are off: integrals, sums, long
    numbers, factorials, powers of powers and high powers, which can take for ever, are not tried at all.
    """
    if not (_FORMULA.search(a) or _FORMULA.search(b)) or max(len(a), len(b)) > 200 or _TOO_HARD.search(a + " " + b):
        return False
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    one, two = (parse(f"${text.strip('$ .')}$", parsing_timeout=None) for text in (a, b))
    return bool(verify(one, two, timeout_seconds=None) or verify(two, one, timeout_seconds=None))
