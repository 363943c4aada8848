"""Gold pairs with their pages, in the form that `mixer synth --calibrate` reads.

    .venv/bin/python benchmarks/synth/gold.py ../shared/data gold.jsonl

XQuAD English and Chinese and CMRC 2018 (Chinese) give spans; PubMedQA and BoolQ give yes and no.
"""

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

MOST = {"cmrc": 600, "pubmedqa": 300, "boolq": 300}


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a compressed jsonl file."""
    with path.open("rb") as file:
        yield from map(json.loads, io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8"))


def spans(data: Path) -> Iterator[dict[str, Any]]:
    """Questions whose answer is words of the page."""
    for language in ("en", "zh"):
        for row in rows(data / f"qa_gold/xquad-{language}-a.jsonl.zst"):
            pair = {"page": row["context"], "question": row["question"], "answer": row["answer"]}
            yield pair | {"language": language, "group": row["title"], "discipline": f"xquad-{language}"}
    found = 0
    for row in rows(data / "chinese/cmrc2018-wikipedia.jsonl.zst"):
        for qa in row["qas"]:
            if found < MOST["cmrc"] and qa["answers"][0] in row["text"]:
                found += 1
                pair = {"page": row["text"], "question": qa["question"], "answer": qa["answers"][0]}
                yield pair | {"language": "zh", "group": row["title"], "discipline": "cmrc2018"}


def yes_no(data: Path) -> Iterator[dict[str, Any]]:
    """Questions answered by yes or no, without a gold sentence: all of a short page is the evidence."""
    found = 0
    for row in rows(data / "eval/pubmedqa-labeled.jsonl.zst"):
        match = re.fullmatch(r"Context: (.*)\s*Question: (.*?)\nA\. .*", row["context"], re.DOTALL)
        if match and row["continuation"].strip() in {"yes", "no"} and found < MOST["pubmedqa"]:
            found += 1
            yield _yes_no(match[1].strip(), match[2], row["continuation"].strip(), "pubmedqa")
    found = 0
    for row in rows(data / "eval/boolq-valid.jsonl.zst"):
        match = re.fullmatch(r"Passage: (.*)\nQuestion: (.*?)\s*(?:Answer:)?\s*", row["query"], re.DOTALL)
        if match and found < MOST["boolq"]:
            found += 1
            yield _yes_no(match[1].strip(), match[2], row["choices"][int(row["gold"])], "boolq")


def _yes_no(page: str, question: str, answer: str, name: str) -> dict[str, Any]:
    pair = {"page": page, "question": question, "answer": answer, "kind": "yes_no", "language": "en"}
    return pair | {"evidence": [page], "group": page[:80], "discipline": name}


def main() -> None:
    data, target = Path(sys.argv[1]), Path(sys.argv[2])
    found = [*spans(data), *yes_no(data)]
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), "utf-8")
    print(f"{len(found)} gold pairs in {target}")


if __name__ == "__main__":
    main()
