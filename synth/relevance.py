"""Whether an answer belongs to its question, or to another question about the same page; no model is asked.

The hard case: page, question and answer are all sound, and the answer is a true statement of the page, only not about
what was asked. Signs of it, each in `signals`: the question's words stand elsewhere on the page than the answer, the
answer is no date though the question says `when`, and the sentence that holds the answer is not the one that comes
closest to the question in the encoder's space.

What the encoder adds is little: see WEIGHTS. In Chinese it is not asked, because it reads English only.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mixer.dedup import words
from mixer.embed import Embed
from synth.candidate import Check, Pair

WEIGHTS = {
    "en": {"bias": -0.742, "cover": 1.792, "near": 1.803, "peak": 2.954, "repeated": -0.344, "type": 0.844},
    "en+encoder": {"bias": -0.637, "cover": 1.38, "near": 1.797, "peak": 2.83, "repeated": -0.412, "type": 0.831}
    | {"cosine": 0.219, "joint": 0.996},
    "zh": {"bias": -0.784, "cover": 1.806, "near": 2.144, "peak": 2.032, "repeated": -0.992, "type": 0.669},
}
"""Logistic weights of `signals`, fitted by benchmarks/relevance.py on 12 of the 24 articles of XQuAD at hand.

Gold pairs against the same question with the answer of another question about the same paragraph, both weighing the
same in sum. On the other 12 articles, share of wrong pairs rejected where 90% (95%) of the gold ones are kept:
English 0.71 (0.57), with the encoder 0.72 (0.58), the encoder's two signals one by one 0.54 and 0.52 (0.33, 0.39);
Chinese 0.68 (0.58). The questions were written with the paragraph in view, by people; others may share fewer words.
"""

THRESHOLDS = {"en": 0.330, "en+encoder": 0.338, "zh": 0.314}
"""Scores that 90% of the gold pairs fitted on reach. Half of all pairs wrong is what a score of 0.5 supposes."""

_REACH = 12.0
"""Words, in Chinese characters, over which a question's word loses two thirds of its pull on the answer."""
_SENTENCE_END = re.compile(
    r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+(?=[\"'\u201c\u2018(\[]?[A-Z0-9])|(?<=[\u3002\uff01\uff1f\uff1b])|\n+"
)
_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_STOP = frozenset(
    words(
        "a about after all also an and another any are as at be because been before being between both but by can "
        "could did do does doing done during each every for from had has have having he her here him his how i if in "
        "into is it its many may might more most much must my no nor not of on or other our over own s shall she "
        "should so some such t than that the their them then there these they this those to under us was we were what "
        "when where which while who whom whose why will with would you your"
    )
)
_ASKING_ZH = re.compile(
    r"什么时候|为什么|怎么样|哪一年|什么|哪些|哪里|哪个|哪儿|多少|何时|何地|为何|如何|怎么|怎样|请问"
    r"|[哪谁几何吗呢的是了在有和与被于由叫做们个一]"
)
_SUFFIX = re.compile(r"(?<=...)(ings?|edly|ed|ies|es|s|ly)$")
_NUMBER = re.compile(
    r"\d|[一二三四五六七八九十百千万亿两零〇]|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen"
    r"|(twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|[mbtr]+illions?|half|third|quarter|dozen|once"
    r"|twice|first|second|zero|none)\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(1\d{3}|20\d\d)s?\b")
_TIME = re.compile(
    r"世纪|年|月|\d日|时期|时代|期间|朝|\b(january|february|march|april|may|june|july|august|september|october|november"
    r"|december|(mon|tues|wednes|thurs|fri|satur|sun)day|century|centuries|spring|summer|autumn|winter|bc|ad|ago|today"
    r"|afternoon|morning|(decade|day|year|month|week)s?)\b",
    re.IGNORECASE,
)
_MEASURES = (
    "number|percentage|percent|proportion|portion|population|amount|total|average|length|height|size|area|cost|price"
    "|rate|value|temperature|distance|density|ratio|median|age"
)
_ASKED = {
    "en": (
        ("number", r"\bhow (many|much|long|far|large|big|old|tall|high|fast|often|deep|wide|heavy|hot|cold|few)\b"),
        ("number", rf"\b(what|which)( (is|was|were|are))?( the)?( \w+)? ({_MEASURES})\b"),
        ("date", r"\bwhen\b|\b(what|which)( \w+)? (years?|date|day|month|century|decade|era|period|time)\b"),
        ("name", r"\bwho(m|se)?\b|\b(what|which) (person|man|woman|king|queen|president|author)\b"),
        ("name", r"\bwhere\b|\b(what|which)( \w+)? (city|cities|country|countries|states?|continent|town|county)\b"),
        ("phrase", r"\bwhy\b|\bhow\b|\bwhat (is|was) the reason\b|\bwhat causes?d?\b"),
    ),
    "zh": (
        (
            "date",
            r"何时|什么(时候|时间|年份|年代|日期|朝代|时期)|哪一?年|哪个?(世纪|月|年代|时期|朝代)|哪天|几(月|年|世纪)",
        ),
        ("number", r"多少|几|多(长|久|大|高|远|深|快|重|宽)|百分比|数量"),
        ("name", r"谁|哪一?位|[什何哪]么?个?些?人"),
        ("name", r"哪里|哪儿|何处|何地|[什哪]么?个?些?(地方|国家|城市|地区|省|市|县|州)"),
        ("phrase", r"为什么|为何|原因|如何|怎么|怎样"),
    ),
}
_CLASHES = {
    "number": {"name", "phrase"},
    "date": {"name"},
    "name": {"number", "date"},
    "phrase": {"number", "date"},
    "": {"number", "date"},
}
"""What is asked for -> what the answer should not be; `what` without more asks for anything but a bare number."""


@dataclass(frozen=True, slots=True)
class _Page:
    sentences: list[str]
    tokens: list[str]
    sentence_of: np.ndarray
    terms: dict[str, np.ndarray]


def relevance(pair: Pair, page: str, embed: Embed | None = None) -> Check:
    """Passes a pair whose answer stands where the page speaks of what the question asks.

    The score is the odds, as a share, that the answer is this question's own and not another's, were both equally
    frequent. A pair whose answer cannot be placed on the page (`yes`, a computed number, no evidence quoted) is not
    this check's to judge: it passes with 0.5.

    Args:
        pair: What was generated.
        page: The text that the pair is about.
        embed: The sentence encoder for English; without it the words and types alone decide.
    """
    found = signals(pair, page, embed)
    if not found:
        return Check("relevance", passed=True, score=0.5, detail="the answer is not on the page: not judged")
    name = pair.language + ("+encoder" if "cosine" in found else "")
    weights = WEIGHTS[name]
    score = 1 / (1 + math.exp(-weights["bias"] - sum(weights[key] * value for key, value in found.items())))
    detail = ", ".join(f"{key} {value:.2f}" for key, value in found.items())
    return Check("relevance", passed=score >= THRESHOLDS[name], score=score, detail=detail)


def signals(pair: Pair, page: str, embed: Embed | None = None) -> dict[str, float]:
    """What speaks for or against the answer, by name; empty where the answer cannot be placed on the page.

    cover: Share of the question's words, weighed by rarity on the page, in the sentence that holds the answer.
    near: The same, each word counting less the further it stands from the answer.
    peak: `near` less what the best place of the whole page would reach.
    repeated: Share of the answer's words that the question already says.
    type: 1 where the answer is of the kind asked for, -1 where it is of another, else 0.
    cosine: English, with encoder: how close the answer's sentence comes to the question, less the best other one.
    joint: The same for question and answer said together.
    """
    parsed = _parse(page, pair.language)
    spans = _places(pair, parsed)
    if not spans:
        return {}
    question = _ASKING_ZH.sub(" ", pair.question) if pair.language == "zh" else pair.question
    asked = {term for _, term in _placed_terms(question, pair.language)}
    answered = [term for _, term in _placed_terms(pair.answer, pair.language)]
    held = sorted({int(parsed.sentence_of[start]) for start, _ in spans})
    cover, near, peak = _overlap(asked, parsed, spans, held)
    found = {
        "cover": cover,
        "near": near,
        "peak": near - peak,
        "repeated": sum(term in asked for term in answered) / len(answered) if answered else 0.0,
        "type": _fit_of_type(pair),
    }
    if embed is not None and pair.language == "en":
        found |= _closeness(pair, parsed.sentences, held, embed)
    return found


@lru_cache(64)
def _parse(page: str, language: str) -> _Page:
    sentences = [part for part in _SENTENCE_END.split(page) if part and words(part)]
    tokens: list[str] = []
    sentence_of: list[int] = []
    places: dict[str, list[int]] = {}
    for number, sentence in enumerate(sentences):
        for place, term in _placed_terms(sentence, language):
            places.setdefault(term, []).append(len(tokens) + place)
        own = words(sentence)
        tokens += own
        sentence_of += [number] * len(own)
    terms = {term: np.array(at) for term, at in places.items()}
    return _Page(sentences, tokens, np.array(sentence_of, np.int64), terms)


def _placed_terms(text: str, language: str) -> list[tuple[int, str]]:
    """(position among the words, term): stems of content words, or pairs of neighbouring Chinese characters."""
    if language != "zh":
        return [(i, _stem(word)) for i, word in enumerate(words(text)) if word not in _STOP]
    found = []
    start = 0
    # Characters pair up only inside a run, so that a pair never reaches over punctuation.
    for run in re.findall(r"[^\W_]+", text):
        own = words(run)
        for i, word in enumerate(own):
            if not _CJK.match(word):
                found.append((start + i, word))
            elif i + 1 < len(own) and _CJK.match(own[i + 1]):
                found.append((start + i, word + own[i + 1]))
        start += len(own)
    return found


def _stem(word: str) -> str:
    if len(word) < 4 or word.isdigit():
        return word
    word = _SUFFIX.sub("", word)
    word = word.removesuffix("e") if len(word) > 3 else word
    word = word[:-1] if word[-1] in "yi" else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def _places(pair: Pair, page: _Page) -> list[tuple[int, int]]:
    """(start, stop) of each place of the answer among the page's words; else of the evidence."""
    if pair.kind != "yes_no" and (spans := _find(page.tokens, words(pair.answer))):
        return spans
    return [span for quote in pair.evidence for span in _find(page.tokens, words(quote))]


def _find(tokens: Sequence[str], part: Sequence[str]) -> list[tuple[int, int]]:
    size = len(part)
    if not size:
        return []
    starts = [i for i, token in enumerate(tokens) if token == part[0]]
    return [(i, i + size) for i in starts if tokens[i : i + size] == part]


def _overlap(asked: set[str], page: _Page, spans: Sequence[tuple[int, int]], held: Sequence[int]) -> list[float]:
    """The question's words in the answer's sentence, round the answer, and at the best place of the page."""
    covers, nears = np.zeros(len(held)), np.zeros(len(spans))
    everywhere = np.zeros(len(page.tokens))
    total = 0.0
    for term in sorted(asked & page.terms.keys()):
        at = page.terms[term]
        inside = np.unique(page.sentence_of[at])
        rarity = math.log((len(page.sentences) + 1) / (len(inside) + 0.5))
        total += rarity
        covers += rarity * np.isin(held, inside)
        nears += [rarity * _pull(at, start, stop) for start, stop in spans]
        everywhere += rarity * _pulls(at, len(page.tokens))
    if not total:
        return [0.0, 0.0, 0.0]
    return [float(covers.max() / total), float(nears.max() / total), float(everywhere.max() / total)]


def _pull(at: np.ndarray, start: int, stop: int) -> float:
    """exp(-distance) of the nearest occurrence outside the answer: the answer's own words do not speak for it."""
    outside = np.r_[start - at[at < start], at[at >= stop] - stop + 1]
    return math.exp(-float(outside.min()) / _REACH) if len(outside) else 0.0


def _pulls(at: np.ndarray, size: int) -> np.ndarray:
    """The same at each word of the page."""
    place = np.arange(size)
    after = np.searchsorted(at, place).clip(max=len(at) - 1)
    before = (after - 1).clip(min=0)
    pulls: np.ndarray = np.exp(-np.minimum(abs(at[after] - place), abs(at[before] - place)) / _REACH)
    return pulls


def _fit_of_type(pair: Pair) -> float:
    if pair.kind == "yes_no":
        return 0.0
    asked = asked_for(pair.question, pair.language)
    given = type_of(pair.answer, pair.language)
    if given in _CLASHES[asked]:
        return -1.0
    return 1.0 if given == asked else 0.0


def asked_for(question: str, language: str) -> str:
    """`number`, `date`, `name` or `phrase`; empty where the question leaves it open."""
    text = question.lower()
    return next((kind for kind, pattern in _ASKED[language] if re.search(pattern, text)), "")


def type_of(answer: str, language: str) -> str:
    """What a short answer looks like: `number`, `date`, `name` or `phrase`."""
    content = [word for word in re.findall(r"[^\W_]+", answer) if word.lower() not in _STOP]
    size = len(words(answer)) if language == "zh" else len(content)
    short, middle = (4, 14) if language == "zh" else (4, 6)
    if ((_TIME.search(answer) and _NUMBER.search(answer)) or _YEAR.search(answer)) and size <= middle:
        return "date"
    if _NUMBER.search(answer) and size <= (middle if re.search(r"\d", answer) else short):
        return "number"
    if language == "zh":
        # Chinese has no capitals: any short answer may be a name.
        return "name" if size <= 8 else "phrase"
    return "name" if content and sum(word[0].isupper() for word in content) >= 0.6 * len(content) else "phrase"


def _closeness(pair: Pair, sentences: Sequence[str], held: Sequence[int], embed: Embed) -> dict[str, float]:
    rows = embed([pair.question, f"{pair.question} {pair.answer}", *sentences])
    others = np.setdiff1d(np.arange(len(sentences)), held)
    found = {}
    for name, row in (("cosine", rows[0]), ("joint", rows[1])):
        close = rows[2:] @ row
        found[name] = float(close[held].max() - (close[others].max() if len(others) else 0.0))
    return found
