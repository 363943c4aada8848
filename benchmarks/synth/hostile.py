"""The thirty hostile pages of the suite before the packaged model: is each counted, is anything accepted that it lacks?

.venv/bin/python benchmarks/synth/hostile.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.hostile_pages import PAGES

RECIPE = {
    "name": "hostile",
    "tokenizer": "smollm2",
    "sources": {
        "pages": {"kind": "jsonl", "path": "pages.jsonl", "language": "en", "columns": {"id": "id"}},
        "qa": {"kind": "synth", "task": "science_qa", "from": "pages"},
    },
    "clean": {"dedup": {"exact": False, "near": None}},
    "models": {"teacher": {"path": "smollm2", "eager": True, "max_model_len": 4096}},
    "synth": {
        "science_qa": {
            "model": "teacher",
            "pairs_per_page": 2,
            "window_chars": 600,
            "question_types": ["open"],
            "sampling": {"temperature": 0.5, "max_tokens": 100},
            "verify": {"votes": 3, "agree": 2},
        }
    },
    "stages": [{"name": "only", "token_budget": 4096, "mixture": {"pages": 1, "qa": 1}}],
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [{"id": f"h{number}", "text": text} for number, text in enumerate(PAGES)]
        (folder / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
        command = [sys.executable, "-m", "mixer.cli", "synth", "recipe.yaml", "--run", "run"]
        subprocess.run(command, check=True, cwd=folder)
        (made,) = (folder / "run/.cache/synth").iterdir()
        table, dropped = pl.read_parquet(made / "candidates.parquet"), pl.read_parquet(made / "dropped.parquet")
        pages = pl.read_parquet(folder / "run/.cache/synth-work/qa/pages.parquet").height
        empty = dropped.filter(pl.col("reason").str.starts_with("pages: no passage")).height
        print(f"{pages} pages = {table['page'].n_unique()} with candidates + {empty} without a passage")
        asked = [json.loads(line) for path in (folder / "run/synth/qa/responses").iterdir() for line in path.open()]
        shapes = {tuple(message["role"] for message in record["messages"]) for record in asked}
        print(f"{len(asked)} prompts, each of the roles {shapes}")
        accepted = table.filter("accepted").to_dicts()
        unsupported = [row for row in accepted if row["answer"].lower() not in PAGES[int(row["page"][1:])].lower()]
        print(f"{table.height} candidates, {len(accepted)} accepted, {len(unsupported)} of them not in their page")
        for row in accepted:
            print(f"  {row['page']}: {row['question']} -> {row['answer']}")


if __name__ == "__main__":
    main()
