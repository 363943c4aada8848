"""Generated tokens a second through `mixer synth`, against vLLM's own offline `LLM.chat` on the same messages.

    .venv/bin/python benchmarks/synth/throughput.py [PAGES]

Start-up is excluded on both sides: ours counts from the first page that is asked about to the last answer in the log,
offline from the call of `chat` to its return. Then what the server's prefix cache gave is read from our log.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parent / "pages.yaml"


def ours(run: Path, pages: int) -> tuple[list[dict[str, Any]], float]:
    """The log's records, and seconds from the first page that is asked about to the last answer."""
    overrides = {"max_pages": pages, "tries": 1, "verify.votes": 0, "verify.agree": 0, "verify.support": "false"}
    options = [word for key, value in overrides.items() for word in ("--set", f"synth.science_qa.{key}={value}")]
    command = [sys.executable, "-m", "mixer.cli", "synth", str(RECIPE), "--run", str(run), *options]
    log = run / "synth/qa/responses/00000.jsonl"
    subprocess.run(command, check=True, capture_output=True)
    # Made when the first page is asked about, and written in place ever after.
    progress = run / ".cache/synth-work/qa/00000.progress"
    born = subprocess.run(["stat", "-c", "%.W", str(progress)], check=True, capture_output=True, text=True).stdout
    began = float(born)
    records = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return records, log.stat().st_mtime - began


OFFLINE = """
import json, sys, time
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams
if __name__ == "__main__":
    given = json.load(open(sys.argv[1]))
    llm = LLM(**given["engine"])
    params = [
        SamplingParams(**r["parameters"], structured_outputs=StructuredOutputsParams(json=r["schema"]))
        for r in given["records"]
    ]
    llm.chat([r["messages"] for r in given["records"][:1]], params[:1], use_tqdm=False)
    began = time.perf_counter()
    found = llm.chat([r["messages"] for r in given["records"]], params, use_tqdm=False)
    seconds = time.perf_counter() - began
    print(json.dumps([sum(len(o.outputs[0].token_ids) for o in found), seconds]))
"""


def offline(folder: Path, records: list[dict[str, Any]]) -> tuple[int, float]:
    """Tokens and seconds of `LLM.chat` on the same messages, schemas and parameters."""
    from curricula.model import model_folder
    from mixer.recipe.synth import Model
    from synth.engine import _dtype, _environment

    store = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curriculum-mixer"
    engine = {
        "model": str(model_folder("smollm2", base=Path(), store=store)),
        "dtype": _dtype(Model(path="smollm2")),
        "max_model_len": 4096,
        "enforce_eager": True,
        "enable_prefix_caching": True,
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        "generation_config": "vllm",
    }
    (folder / "given.json").write_text(json.dumps({"engine": engine, "records": records}))
    (folder / "offline.py").write_text(OFFLINE)
    command = [sys.executable, str(folder / "offline.py"), str(folder / "given.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment())
    tokens, seconds = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("[") and "]" in line)
    )
    return tokens, seconds


def main() -> None:
    pages = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    with tempfile.TemporaryDirectory() as name:
        records, seconds = ours(Path(name) / "run", pages)
        tokens = sum(record["completion_tokens"] for record in records)
        print(f"{pages} pages, {len(records)} requests")
        print(f"mixer synth: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.1f} tokens/s", flush=True)
        theirs, their_seconds = offline(Path(name), records)
        print(f"LLM.chat: {theirs} tokens in {their_seconds:.1f} s, {theirs / their_seconds:.1f} tokens/s")
        print(f"ratio: {(tokens / seconds) / (theirs / their_seconds):.2f} (at least 0.9)")


if __name__ == "__main__":
    main()
