"""Decontamination measured: recall by form over every benchmark item at hand, what it finds in clean text, and speed.

    .venv/bin/python benchmarks/decontaminate.py [DATA]     # DATA: a folder with eval/, science_text/, ...

Peers state no recall of their own; marin measured 54% of verbatim items for plain 13-grams (marin#5519), which is run
here beside ours on the same items: a document counts as found if it shares one 13-gram of words with any item.
"""

import resource
import sys
import time
from itertools import accumulate
from pathlib import Path

import numpy as np
import orjson

from mixer import ngrams
from mixer.benchmark import Item, read_items
from mixer.cut import cut
from mixer.decontaminate import Index
from mixer.dedup import shingles
from mixer.forms import forms
from mixer.injection import Measured, Report, measure
from mixer.markup import article_text
from mixer.readers.streams import lines, open_stream
from mixer.run import digest

CLEAN = ("science_text/openstax-*", "chinese/cmrc*", "chinese/oi-wiki*", "qa_forum/*", "english/classic*", "code/*")
OVERLAPPING = ("math/gsm8k-train*", "science_text/plos*", "qa_gold/xquad*")
SEED = 1
MOST_ROWS = 8000
MOST_ITEMS = 4000
LEAST_ITEMS = 200
MOST_CHARS = 200_000


def texts(path: Path, most: int = 1_500_000) -> list[str]:
    """The texts of some rows of a file, chosen by hash: about so many characters."""
    with open_stream(str(path)) as stream:
        rows = [orjson.loads(line) for line in lines(stream) if line]
    rows = sorted(enumerate(rows), key=lambda row: digest([SEED, path.name, row[0]]))[:MOST_ROWS]
    fields = ("text", "html", "xml", "question", "context")
    found = [next(row[field] for field in fields if row.get(field))[:MOST_CHARS] for _, row in rows]
    ends = accumulate(map(len, found))
    return [text for text, end in zip(found, ends, strict=True) if end - len(text) < most]


def _text(row: dict[str, str]) -> str:
    if row.get("xml"):
        # Tags would stand between the words of an abstract.
        return article_text(row["xml"])
    return next(row[field] for field in ("text", "html", "question", "context") if row.get(field))


def pages(data: Path, patterns: tuple[str, ...], **options: int) -> dict[str, list[str]]:
    found = sorted(path for pattern in patterns for path in data.glob(pattern))
    return {path.name.split(".")[0]: texts(path, **options) for path in found}


def plain_13_grams(items: list[Item], clean: list[str]) -> None:
    """What a set of 13-grams finds of the same items, in the form of the peers: any one n-gram is a hit."""
    grams = [shingles(f"{item.passage} {item.question}", 13) for item in items]
    known = ngrams.Lookup(np.unique(np.concatenate(grams)))
    # Those that `measure` tries.
    tried = sorted(items, key=lambda item: digest([SEED, item.benchmark, item.id]))[:MOST_ITEMS]
    for form in ("verbatim", "edited", "question_only"):
        shown = [text for item in tried if (text := forms(item, SEED).get(form))]
        caught = sum(len(known(shingles(text, 13))[0]) > 0 for text in shown)
        print(f"plain 13-grams, {form}: {caught / len(shown):.3f} of {len(shown):,} (short items included)")
    hit = sum(len(known(shingles(text, 13))[0]) > 0 for text in clean)
    print(f"plain 13-grams, clean documents with a hit: {hit} of {len(clean)}")


def show(report: Report) -> None:
    told(report.together)
    for name, measured in report.benchmarks.items():
        shares = [f"{one.form} {one.share:.3f} ({one.tried})" for one in measured.recall if one.tried]
        print(f"{name}: {measured.items:,} tried, {measured.unmatchable:,} unmatchable; {', '.join(shares)}")
    print(f"clean: {report.found} places in {report.words:,} words, {report.found_per_million:.1f} per million")
    for example in report.examples:
        hit = example.hit
        print(f"  {hit.benchmark} {hit.item} {hit.part} {hit.share:.2f}: {example.text!r} for {example.wanted!r}")


def told(measured: Measured) -> None:
    print(f"items tried: {measured.items:,}, unmatchable in any form: {measured.unmatchable:,}")
    for one in measured.recall:
        print(f"recall {one.form}: {one.share:.4f} of {one.tried:,} matchable, {one.unmatchable:,} unmatchable")
        for benchmark, own in one.missed[:3]:
            print(f"  missed: {benchmark} {own}")


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "shared" / "data"
    began = time.perf_counter()
    files = sorted(path for path in (data / "eval").rglob("*") if path.is_file())
    items = [item for path in files for item in read_items(path)]
    read = time.perf_counter()
    index = Index.build(items)
    built = time.perf_counter()
    print(f"items: {len(items):,} of {len(files)} files read in {read - began:.1f} s, indexed in {built - read:.1f} s")
    print(f"index: {len(index.words):,} words, {len(index.grams):,} n-grams, {len(index.sums):,} lists, ", end="")
    print(f"fingerprint {index.fingerprint[:8]}")
    clean = pages(data, CLEAN)
    every = [text for found in clean.values() for text in found]
    index.find(every[0])
    began = time.perf_counter()
    for text in every:
        index.find(text)
    took = time.perf_counter() - began
    size, count = sum(map(len, every)), sum(len(ngrams.tokens(text)) for text in every)
    print(f"speed: {len(every) / took:,.0f} documents/s of {size / len(every):,.0f} characters, ", end="")
    print(f"{count / took:,.0f} words/s")
    short = [text[i : i + 2000] for text in every for i in range(0, len(text), 2000)][:20_000]
    began = time.perf_counter()
    for text in short:
        index.find(text)
    print(f"speed: {len(short) / (time.perf_counter() - began):,.0f} documents/s of 2,000 characters")
    show(measure(index, items, every, SEED, most=MOST_ITEMS, least=LEAST_ITEMS, shown=20))
    known = {(item.benchmark, item.id): item for item in items}
    for name, found in pages(data, OVERLAPPING, most=12_000_000).items():
        hits = [(text, index.find(text)) for text in found]
        marks = sorted({hit.benchmark for _, places in hits for hit in places})
        left = sum(bool(index.find(cut(text, places, known))) for text, places in hits if places)
        print(
            f"overlap {name}: {sum(bool(p) for _, p in hits)} of {len(found)} documents, {marks}, {left} after the cut"
        )
    plain_13_grams(items, every)
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
