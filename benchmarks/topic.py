"""How often `curricula.topic` names the discipline of an English page of a site that it never saw.

    .venv/bin/python benchmarks/topic.py ../shared/data [CACHE]

Labels are the data's own `subject`, which are eight of the nine names in synth/disciplines.py, page by page; what else
is labelled, and what is left out, stands beside SITES and ARTICLES. A site is a host or a book; what shares passages
or comes from one host is one site. At most 30 pages of each discipline of a site, chosen by hash, of 500 characters or more. Takes some
five minutes on one core; with a folder as CACHE the embedded pages are kept there and a second run takes seconds.
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

from curricula.topic import THRESHOLD, embedded, held_out, score, zero_shot
from mixer.embed import Encoder
from mixer.extract import Rejected, extract
from mixer.run import digest
from mixer.types import Page

GENERAL = "general education"
DESCRIPTIONS = {
    "mathematics": "mathematics: algebra, calculus, geometry, probability, statistics, proofs, equations",
    "physics": "physics: mechanics, energy, electricity, magnetism, optics, waves, quantum theory",
    "chemistry": "chemistry: atoms, molecules, reactions, acids, bonds, elements, compounds",
    "biology": "biology: cells, genes, evolution, plants, animals, ecology, proteins",
    "astronomy": "astronomy: stars, planets, galaxies, telescopes, the solar system, cosmology",
    "earth science": "earth science: geology, rocks, climate, oceans, earthquakes, weather, soil",
    "medicine": "medicine: patients, diseases, drugs, anatomy, treatment, clinical studies, health",
    "computer science": "computer science: programs, algorithms, data structures, software, networks",
    GENERAL: "general knowledge: history, literature, art, economics, society, daily life",
}
"""Those of synth/disciplines.py."""
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
MOST = 30
LEAST_CHARS = 500
SEED = 1
BOOK_PASSAGES = 3
PASSAGE_CHARS = 4000


class Case(NamedTuple):
    """A document with what it is about, by its site's own word."""

    site: str
    id: str
    label: str
    page: Page


def rows(path: Path) -> list[dict[str, Any]]:
    with zstandard.open(path.with_name(path.name + ".jsonl.zst"), "rb") as file:
        return [json.loads(line) for line in io.TextIOWrapper(file, "utf-8")]


def pages(data: Path) -> Iterator[Case]:
    for name, site in SITES.items():
        for row in rows(data / name):
            if row["subject"] in DESCRIPTIONS:
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


def vectors(site: str, cases: list[Case], cache: Path | None) -> tuple[np.ndarray, list[str]]:
    """A site's embedded pages and their labels."""
    kept = cache / f"{site}.npz" if cache else None
    if kept and kept.is_file():
        stored = np.load(kept)
        return stored["vectors"], stored["labels"].tolist()
    labels, found = zip(*texts(site, cases), strict=True)
    rows = embedded(found, Encoder().embed)
    if kept:
        np.savez(kept, vectors=rows, labels=np.array(labels))
    return rows, list(labels)


def table(report: dict[str, Any]) -> None:
    names = sorted(report["confusion"])
    guessed = sorted({guess for row in report["confusion"].values() for guess in row} | set(names))
    print("    " + " " * 20 + "".join(f"{name[:9]:>10}" for name in guessed) + "    recall")
    for name in names:
        row = report["confusion"][name]
        recall = "  one site" if report["recall"][name] is None else f"{report['recall'][name]:10.2f}"
        print(f"    {name:20}" + "".join(f"{row.get(guess, 0) or '.':>10}" for guess in guessed) + recall)


def say(title: str, report: dict[str, Any]) -> None:
    recalls = [recall for recall in report["recall"].values() if recall is not None]
    print(f"{title}: accuracy {report['accuracy']:.3f} on {report['tested']} pages")
    print(f"{title}: mean recall {np.mean(recalls):.3f} over {len(recalls)} disciplines")
    known, accuracy = report["known"], report["accuracy_known"]
    print(f"{title}: at or above {THRESHOLD}: {known:.3f} of the pages, accuracy {accuracy:.3f}")
    table(report)


def by_site(features: np.ndarray, labels: list[str], sites: list[str]) -> None:
    """Each site left out in turn, one line a site."""
    from curricula import linear

    for training, test in linear.folds(labels, sites, len(set(sites))):
        known = [labels[row] for row in training]
        head = linear.fit(features[training], known, sorted(set(known)))
        guessed = [head.classes[column] for column in head.probabilities(features[test]).argmax(axis=1)]
        right = sum(labels[row] == guess for row, guess in zip(test, guessed, strict=True))
        wrong = Counter(
            f"{labels[row]} -> {guess}" for row, guess in zip(test, guessed, strict=True) if labels[row] != guess
        )
        most = ", ".join(f"{pair} {count}" for pair, count in wrong.most_common(3))
        print(f"  {sites[test[0]]:22} {right:3} of {len(test):3}  {most}")


def main() -> None:
    data = Path(sys.argv[1])
    cache = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    cases = defaultdict(list)
    for case in [*pages(data), *paragraphs(data), *general(data)]:
        cases[case.site].append(case)
    found = {site: vectors(site, own, cache) for site, own in sorted(cases.items())}
    features = np.concatenate([rows for rows, _ in found.values()])
    labels = [label for _, own in found.values() for label in own]
    sites = [site for site, (rows, _) in found.items() for _ in rows]
    print(f"{len(labels)} pages of {len(found)} sites")
    head = zero_shot(DESCRIPTIONS).head
    probabilities = head.probabilities(features)
    guessed = [head.classes[column] for column in probabilities.argmax(axis=1)]
    sure = (probabilities.max(axis=1) >= THRESHOLD).tolist()
    say("zero-shot", score(sorted(DESCRIPTIONS), labels, guessed, sure))
    say("trained on other sites", held_out(features, labels, sites))
    by_site(features, labels, sites)


if __name__ == "__main__":
    main()
