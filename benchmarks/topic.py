"""How often `curricula.scores.topic` names the discipline of an English page of a site that it never saw.

    .venv/bin/python benchmarks/topic.py ../shared/data [CACHE]

Labels are the data's own `subject`, page by page, which are eight of the nine of FIELDS; what else is labelled, and
what is left out, stands beside SITES and ARTICLES. A site is a host or a book; what shares passages or comes from one
host is one site. At most 30 pages of each discipline of a site, chosen by hash, of 500 characters or more. No site is
trained and tested on; astronomy has one site here and is tested by its description alone. Each page is judged alone,
then with 3, 10 or all pages of its site, whose labels nothing has seen: see `linear.by_group`. The ridge is chosen
among the other sites; the descriptions, which are general, and the way pages are held against them were chosen by
people who knew the sites and saw figures of this benchmark. So the last figure is one of collections that were first
looked at when all that was settled: exam questions, abstracts, source code, passages of novels. Takes some twelve
minutes on one core; with a folder as CACHE the embedded pages are kept there and a second run takes two.
"""

import io
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard
from lxml import html

from curricula.scores.linear import by_group, folds, score
from curricula.scores.phrases import pooled
from curricula.scores.topic import THRESHOLD, TopicModel, fitted, windows, zero_shot
from mixer.disciplines import FIELDS
from mixer.embed import Encoder
from mixer.extract import Rejected, extract
from mixer.run import digest
from mixer.types import Page

GENERAL = "general education"
NAMES = sorted(FIELDS)
SITES = {
    "science_html/astropy-docs": "astropy",
    "science_html/carpentries-genomics": "carpentries",
    "science_html/cppreference": "cppreference",
    "science_html/crump-statistics": "crump-statistics",
    "science_html/discrete-math": "discrete-math",
    "science_html/geosci-em": "geosci-em",
    "science_html/introqm": "introqm",
    "science_html/ohdsi-book": "ohdsi-book",
    "science_html/openstax-anatomy-xhtml": "openstax-anatomy",
    "science_html/phylogenetics-biopython-docs": "phylip-biopython",
    "science_html/rdkit-docs": "rdkit",
    "science_html/wikipedia-science": "wikipedia",
    "science_text/openstax-biology": "openstax-biology",
    "science_text/openstax-biology-concepts": "openstax-biology",
    "science_text/openstax-chemistry": "openstax-chemistry",
    "science_text/openstax-physics": "openstax-physics",
    "science_text/openstax-precalculus": "openstax-precalculus",
    "science_text/openstax-statistics": "openstax-statistics",
}
"""File -> site. Left out: the anatomy book's second format; PLOS ONE, whose subject is `biology/medicine`; Chinese,
which the encoder does not read."""
ARTICLES = {
    "Oxygen": "chemistry",
    "Prime_number": "mathematics",
    "Computational_complexity_theory": "computer science",
    "Intergovernmental_Panel_on_Climate_Change": "earth science",
    "Pharmacy": "medicine",
    "Amazon_rainforest": None,
    "Apollo_program": None,
    "Black_Death": None,
}
"""XQuAD's paragraphs are Wikipedia's and belong to that site; articles not named are general education, those with
None stand between two disciplines and are left out, as are the five pages whose subject is `general science`."""
EITHER = {
    ("introqm", "chemistry"): "physics",
    ("geosci-em", "physics"): "earth science",
    ("phylip-biopython", "biology"): "computer science",
    ("carpentries", "biology"): "computer science",
    ("rdkit", "chemistry"): "computer science",
    ("ohdsi-book", "medicine"): "computer science",
    ("openstax-anatomy", "medicine"): "biology",
}
"""(Site, subject) -> what its pages may as well be called: quantum mechanics for chemists, Maxwell's laws in a book on
prospecting, manuals of scientific software, the human body. Only the line that says so counts them as right."""
FRESH = {
    "mmlu-mathematics": ("mathematics", "eval/mmlu-test-a", 5),
    "mmlu-physics": ("physics", "eval/mmlu-test-a", 5),
    "mmlu-computer": ("computer science", "eval/mmlu-test-a", 5),
    "gsm8k": ("mathematics", "math/gsm8k-train", 5),
    "pubmedqa": ("medicine", "eval/pubmedqa-labeled", 1),
    "python-packages": ("computer science", "code/python-packages", 1),
    "lambada": ("general education", "eval/lambada-openai-test", 5),
}
"""Collection -> its discipline, its file, and how many of its short rows make a page. MMLU names its fields; the others
are of one discipline by what they are, pubmedqa more or less. Nothing is trained on them."""
MOST = 30
LEAST_CHARS = 500
SEED = 1
BOOK_PASSAGES = 3
PASSAGE_CHARS = 4000
TOGETHER = (3, 10)
READ = ("question", "choices", "answer", "context", "text")


class Case(NamedTuple):
    """A document with what it is about, by its site's own word."""

    site: str
    id: str
    label: str
    page: Page


class Site(NamedTuple):
    """Its pages' windows, how many each page has, and the pages' labels."""

    windows: np.ndarray
    counts: list[int]
    labels: list[str]


def rows(path: Path) -> list[dict[str, Any]]:
    with zstandard.open(path.with_name(path.name + ".jsonl.zst"), "rb") as file:
        return [json.loads(line) for line in io.TextIOWrapper(file, "utf-8")]


def pages(data: Path) -> Iterator[Case]:
    for name, site in SITES.items():
        for row in rows(data / name):
            if row["subject"] in FIELDS:
                markup = "html" if "html" in row else "markdown"
                yield Case(site, row["id"], row["subject"], Page(row["id"], row.get("html") or row["text"], markup))


def paragraphs(data: Path) -> Iterator[Case]:
    for text, title in {row["context"]: row["title"] for row in rows(data / "qa_gold" / "xquad-en-a")}.items():
        label = ARTICLES.get(title, GENERAL)
        if label:
            yield Case("wikipedia", digest(text), label, Page(title, text, "text"))


def general(data: Path) -> Iterator[Case]:
    """Passages spread over public-domain books, and forum threads about coffee."""
    for row in rows(data / "english" / "classic-books"):
        step = len(row["text"]) // (BOOK_PASSAGES + 1)
        for number in range(1, BOOK_PASSAGES + 1):
            passage = row["text"][number * step :][:PASSAGE_CHARS]
            yield Case("classic-books", f"{row['id']}#{number}", GENERAL, Page(row["id"], passage, "text"))
    for row in rows(data / "qa_forum" / "coffee-stackexchange"):
        parts = [row["html"], *(answer["html"] for answer in row["answers"])]
        text = "\n".join(html.fromstring(f"<div>{part}</div>").text_content() for part in parts)
        yield Case("coffee.stackexchange", row["id"], GENERAL, Page(row["id"], f"{row['title']}\n{text}", "text"))


def fresh(data: Path) -> Iterator[Case]:
    for name, (label, file, each) in FRESH.items():
        field = name.removeprefix("mmlu-")
        found = [row for row in rows(data / file) if "field" not in row or row["field"] == field]
        step = len(found) // (MOST * each)
        parts = ["\n".join(map(str, filter(None, map(row.get, READ)))) for row in found[::step]]
        for start in range(0, MOST * each, each):
            text = "\n\n".join(parts[start : start + each])[:PASSAGE_CHARS]
            yield Case(name, f"{name}#{start}", label, Page(name, text, "text"))


def texts(site: str, cases: list[Case]) -> Iterator[tuple[str, str]]:
    """Yield (label, text) of the first pages by hash that are long enough, of each discipline of a site."""
    found: Counter[str] = Counter()
    for case in sorted(cases, key=lambda case: digest([SEED, site, case.id])):
        if found[case.label] == MOST:
            continue
        try:
            text = extract(case.page, engine="trafilatura", max_bytes=10_000_000, max_elements=200_000)
        except Rejected:
            continue
        if len(text) >= LEAST_CHARS:
            found[case.label] += 1
            yield case.label, text


def vectors(site: str, cases: list[Case], cache: Path | None) -> Site:
    """A site's pages as embedded windows."""
    kept = cache / f"{site}.npz" if cache else None
    if kept and kept.is_file():
        stored = np.load(kept)
        return Site(stored["rows"], stored["counts"].tolist(), stored["labels"].tolist())
    labels, found = zip(*texts(site, cases), strict=True)
    pieces = [windows(text) for text in found]
    rows = Encoder().embed([window for own in pieces for window in own])
    counts = list(map(len, pieces))
    if kept:
        np.savez(kept, rows=rows, counts=np.array(counts), labels=np.array(labels))
    return Site(rows, counts, list(labels))


def table(report: dict[str, Any]) -> None:
    names = sorted(report["confusion"])
    guessed = sorted({guess for row in report["confusion"].values() for guess in row} | set(names))
    print("    " + " " * 20 + "".join(f"{name[:9]:>10}" for name in guessed) + "    recall")
    for name in names:
        row = report["confusion"][name]
        recall = "  untested" if report["recall"][name] is None else f"{report['recall'][name]:10.2f}"
        print(f"    {name:20}" + "".join(f"{row.get(guess, 0) or '.':>10}" for guess in guessed) + recall)


def say(title: str, truth: list[str], sites: list[str], probabilities: np.ndarray) -> None:
    guessed = [NAMES[column] for column in probabilities.argmax(axis=1)]
    report = score(NAMES, truth, guessed, (probabilities.max(axis=1) >= THRESHOLD).tolist())
    fair = [g in (t, EITHER.get((s, t))) for t, g, s in zip(truth, guessed, sites, strict=True)]
    recalls = [recall for recall in report["recall"].values() if recall is not None]
    print(f"{title}: accuracy {report['accuracy']:.3f} on {report['tested']} pages")
    print(f"{title}: mean recall {np.mean(recalls):.3f} over {len(recalls)} disciplines")
    known, accuracy = report["known"], report["accuracy_known"]
    print(f"{title}: at or above {THRESHOLD}: {known:.3f} of the pages, accuracy {accuracy:.3f}")
    print(f"{title}: accuracy {np.mean(fair):.3f} where either of two disciplines will do")
    table(report)
    by_site(truth, guessed, sites)


def both(title: str, truth: list[str], sites: list[str], probabilities: np.ndarray) -> None:
    """Each page by itself, then with what the site's other pages seem to be about; no label of the site is known."""
    say(f"{title}, each page alone", truth, sites, probabilities)
    for together in TOGETHER:
        groups = [f"{site}#{place // together}" for site, place in zip(sites, places(sites), strict=True)]
        right = np.array(NAMES)[by_group(probabilities, groups).argmax(axis=1)] == truth
        print(f"{title}, {together} pages of a site together: accuracy {right.mean():.3f}")
    say(f"{title}, all pages of a site together", truth, sites, by_group(probabilities, sites))


def places(sites: list[str]) -> Iterator[int]:
    """Yield how many rows before each are of its site."""
    seen: Counter[str] = Counter()
    for site in sites:
        yield seen[site]
        seen[site] += 1


def left_out(
    features: np.ndarray, labels: list[str], sites: list[str], prior: TopicModel | None
) -> tuple[list[str], list[str], np.ndarray]:
    """Label, site and probabilities of each page, by a head that saw no page of its site, the ridge chosen alike.

    A discipline of one site is not tested.
    """
    rows, found = [], []
    for training, test in folds(labels, sites, len(set(sites))):
        model = fitted(features[training], [labels[row] for row in training], [sites[row] for row in training], prior)
        assert list(model.head.classes) == NAMES
        rows += test.tolist()
        found.append(model.head.probabilities(features[test]))
    return [labels[row] for row in rows], [sites[row] for row in rows], np.concatenate(found)


def by_site(truth: list[str], guessed: list[str], sites: list[str]) -> None:
    for site in dict.fromkeys(sites):
        pairs = [(t, g) for t, g, s in zip(truth, guessed, sites, strict=True) if s == site]
        wrong = Counter(f"{t} -> {g}" for t, g in pairs if t != g)
        most = ", ".join(f"{pair} {count}" for pair, count in wrong.most_common(3))
        print(f"    {site:22} {len(pairs) - wrong.total():3} of {len(pairs):3}  {most}")


def main() -> None:
    data = Path(sys.argv[1])
    cache = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    cases = defaultdict(list)
    for case in [*pages(data), *paragraphs(data), *general(data)]:
        cases[case.site].append(case)
    found = {site: vectors(site, own, cache) for site, own in sorted(cases.items())}
    described = zero_shot({name: FIELDS[name] for name in NAMES})
    plain = np.concatenate([pooled(site.windows, site.counts) for site in found.values()])
    near = np.concatenate([pooled(site.windows, site.counts, described.phrases) for site in found.values()])
    labels = [label for site in found.values() for label in site.labels]
    sites = [name for name, site in found.items() for _ in site.labels]
    print(f"{len(labels)} pages of {len(found)} sites")
    both("descriptions alone", labels, sites, described.head.probabilities(near))
    both("trained on the other sites, no descriptions", *left_out(plain, labels, sites, None))
    both("trained on the other sites, with descriptions", *left_out(near, labels, sites, described))
    head = fitted(near, labels, sites, described).head
    others = {name: vectors(name, [case for case in fresh(data) if case.site == name], cache) for name in FRESH}
    truth = [label for site in others.values() for label in site.labels]
    owners = [name for name, site in others.items() for _ in site.labels]
    pages_of = [pooled(site.windows, site.counts, described.phrases) for site in others.values()]
    for title, judge in (("descriptions alone", described.head), ("trained on all sites, with descriptions", head)):
        both(f"fresh collections, {title}", truth, owners, judge.probabilities(np.concatenate(pages_of)))


if __name__ == "__main__":
    main()
