"""The comparison of methods, end to end on a tiny model: split, heal, arms, resume, report."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from typer.testing import CliRunner

from mixer.cli import app
from tests import toys, training
from tests.tiny_model import tiny_model

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "retention"))

import experiment  # noqa: E402
import fresh  # noqa: E402
import pairs  # noqa: E402

SLICES = {
    "prose": {"path": "prose.jsonl", "min_bytes": 20, "max_bytes": 150, "max_documents": 8},
    "field": {"path": "out/data/field-held.jsonl", "kind": "domain", "min_bytes": 20, "max_bytes": 150},
}
GUARD = {"every": 2560, "first_steps": [], "keep_best": False}
RETENTION = {"slices": SLICES, "window": 64, "replicates": 200, "max_forgetting": 0.5, "probes": False}
ARMS = {
    "out": "out",
    "split": {"field": {"path": "field.jsonl", "by": "chapter", "held": 0.3}},
    "pairs": {"asked": {"paths": ["book.jsonl"]}, "wrong": {"paths": ["book.jsonl"], "swapped": 0.3}},
    "heal": "heal.yaml",
    "recipe": "adapt.yaml",
    "data": {
        "science": [],
        "general": ["stages.adapt.mixture={web: 1}", "retention.guard.replay=[field]"],
        "replay": ["stages.adapt.replay={share: 0.25, mixture: {web: 1}}"],
        "ordered": [
            "scores.perplexity={model: model, sources: [field], max_tokens: 100}",
            "stages.adapt.order={field: {by: perplexity, buckets: 2}}",
        ],
        "asked": [
            "sources.pairs={kind: jsonl, path: out/pairs/wrong.jsonl, columns: {text: [question, answer]}, language: en}",
            "stages.adapt.mixture={field: 4, pairs: 1}",
        ],
    },
    "control": "general",
    "arms": {
        "plain": {"data": "science", "rates": [1.0e-3, 4.0e-3], "seeds": [1, 2], "mix": [0.5]},
        "general": {"data": "general", "rates": [1.0e-3, 4.0e-3]},
        "replay": {"data": "replay", "rates": [1.0e-3]},
        "block_expansion": {"data": "science", "method": "block_expansion", "rates": [4.0e-3], "set": [
            "train.method.groups=2"
        ]},
        "ordered": {"data": "ordered"},
        "asked": {"data": "asked"},
    },
}  # fmt: skip


def recipe(name: str, mixture: dict, budget: int, **changes) -> dict:
    sources = {
        "web": {"kind": "jsonl", "path": "more.jsonl", "language": "en"},
        "field": {"kind": "jsonl", "path": "out/data/field-train.jsonl", "language": "en"},
    }
    return {
        "name": name,
        "seed": 3,
        "tokenizer": "bytes",
        "sequence_length": 64,
        "sources": {key: own for key, own in sources.items() if name == "adapt" or key == "web"},
        "stages": [{"name": name, "token_budget": budget, "mixture": mixture}],
        "clean": {"filters": []},
        "train": training.TRAIN,
        "retention": RETENTION | {"guard": GUARD | changes},
    }


def exercise(number: int) -> str:
    """As a textbook has it."""
    question = (
        f'{toys.sentences(7000 + number, 1)} Which number is it?\n\n1.  {number}\n2.  {number + 1}\n{{: type="a"}}\n'
    )
    problem = f'<div data-type="problem" markdown="1">\n{question}</div>'
    return f'<div data-type="exercise">\n{problem}\n<div data-type="solution" markdown="1">\nB\n\n</div>\n</div>\n'


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The comparison, healed and run, with every command that it took."""
    folder = tmp_path_factory.mktemp("lab")
    toys.byte_tokenizer(folder / "bytes")
    tiny_model(folder / "model")
    for name, first, count in (("more", 5000, 120), ("field", 0, 90), ("prose", 900, 12)):
        text = toys.sentences if name != "field" else lambda seed, _: " + ".join(str(seed * k) for k in range(99))
        rows = [{"text": text(first + n, 5), "chapter": n // 3} for n in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "book.jsonl").write_text(json.dumps({"text": "".join(exercise(n) for n in range(120))}) + "\n")
    heal = recipe("heal", {"web": 1}, 7680)
    adapt = recipe("adapt", {"field": 1}, 5120, replay=["web"])
    for name, content in (("heal", heal), ("adapt", adapt), ("arms", ARMS)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

        def mixer(words):
            said.append(" ".join(words))
            # A build leaves as many threads as it liked; on busy cores they wait for each other.
            torch.set_num_threads(1)
            # Processes of their own take longer to begin than these few documents.
            found = CliRunner().invoke(app, [*words, *(["--workers", "1"] if words[0] == "build" else [])])
            assert found.exit_code in (0, 3), f"{words}\n{found.output}"
            return found.exit_code, found.stdout

        opened = experiment.open_lab(folder / "arms.yaml", mixer=mixer)
        opened.heal()
        opened.run([])
        yield opened, said


def test_a_base_is_healed_once_and_everything_begins_with_it(lab, capsys):
    opened, said = lab
    assert [line.split()[0] for line in said[:2]] == ["build", "train"]
    before = len(said)
    opened.heal()
    assert len(said) == before
    out = capsys.readouterr().out
    assert out.count("tokens  prose") == 4
    assert "last change:" in out
    arms = [line for line in said[2:] if line.startswith(("train", "retention"))]
    assert len(arms) == 2 * len(list(opened.result("x", 1, 1).parent.glob("*.json")))
    assert all(f"--set train.model={opened.model}" in line for line in arms)


def test_no_group_of_rows_is_on_both_sides(lab):
    opened, _ = lab
    sides = [
        {json.loads(line)["chapter"] for line in (opened.out / "data" / f"field-{part}.jsonl").read_text().splitlines()}
        for part in ("train", "held")
    ]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(range(30))


def test_every_arm_is_measured_and_later_seeds_take_the_best_rate(lab):
    opened, _ = lab
    names = {path.stem for path in opened.result("x", 1, 1).parent.glob("*.json")}
    best = max(("1e-03", "4e-03"), key=lambda rate: opened.reading("plain", float(rate), 1)["gain"])
    assert names == {
        *("plain-1e-03-s1", "plain-4e-03-s1", "general-1e-03-s1", "general-4e-03-s1"),
        *("replay-1e-03-s1", "block_expansion-4e-03-s1", f"plain-{best}-s2"),
        *(f"ordered-{best}-s1", f"asked-{best}-s1"),
    }


def test_the_base_is_measured_once_for_all(lab):
    """A file a slice for the base, each training and each mixture of weights."""
    opened, _ = lab
    found = [json.loads(path.read_text()) for path in opened.result("x", 1, 1).parent.glob("*.json")]
    models = 1 + len(found) + sum(len(one.get("interpolated", {})) for one in found)
    assert len(list((opened.out / "readings").glob("*.parquet"))) == models * len(SLICES)


def test_text_that_the_base_writes_is_built_once_there_is_a_base(lab, tmp_path, capsys):
    opened, _ = lab
    built: list[list[str]] = []

    def mixer(words):
        Path(words[3]).mkdir(exist_ok=True)
        built.append(list(words))
        return 0, ""

    data = {"own": ("models={self: {path: '{base}'}}",), "science": ()}
    arms = {"own": opened.arms.arms["replay"].model_copy(update={"data": "own"}), "plain": opened.arms.arms["plain"]}
    changed = opened.arms.model_copy(update={"data": data, "arms": arms})
    before = experiment.Lab(changed.model_copy(update={"out": str(tmp_path)}), opened.base, mixer)
    before.build([])
    assert "own: not built, the base writes some of its text: `heal` first" in capsys.readouterr().out
    assert [Path(words[3]).name.split("-")[0] for words in built] == ["base", "science", "science"]
    with pytest.raises(SystemExit, match="there is no base: run `heal` first"):
        before.build(["own"])
    experiment.Lab(changed, opened.base, mixer).build(["own"])
    assert built[-1][-1] == f"models={{self: {{path: '{opened.model}'}}}}"


def test_an_arm_that_ended_leaves_the_mixtures_of_another_alone(lab):
    """Arms of one text share a Run, and may run beside each other."""
    opened, _ = lab
    [run] = opened.out.glob("science-s1-*")
    for name in ("plain-1e-03-final-0.50", "block_expansion-4e-03-final-0.50"):
        (run / "retention" / "interpolated" / name).mkdir(parents=True)
    opened._tidy(run, "plain-1e-03")
    assert [path.name for path in (run / "retention" / "interpolated").iterdir()] == [
        "block_expansion-4e-03-final-0.50"
    ]
    opened._tidy(run, "block_expansion-4e-03")


def test_a_share_of_the_pairs_has_the_answer_of_another(lab):
    opened, _ = lab
    right, wrong = (
        [json.loads(line) for line in (opened.out / "pairs" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("asked", "wrong")
    )
    assert [int(pair["answer"]) for pair in right] == list(range(1, 121))
    assert [pair["question"] for pair in wrong] == [pair["question"] for pair in right]
    assert sum(one["answer"] != other["answer"] for one, other in zip(right, wrong, strict=True)) == 36
    assert sorted(pair["answer"] for pair in wrong) == sorted(pair["answer"] for pair in right)


def test_easy_text_comes_first(lab):
    opened, _ = lab
    [run] = opened.out.glob("ordered-s1-*")
    windows = pl.read_parquet(run / "realised" / "windows.parquet")
    half = windows.height // 2
    assert half > 1
    assert windows["high"][:half].max() <= windows["low"][half:].min()


def test_exercises_that_are_more_than_words_are_left_out():
    def asked(problem: str, solution: str) -> list:
        parts = zip(("problem", "solution"), (problem, solution), strict=True)
        inside = "\n".join(f'<div data-type="{part}" markdown="1">\n{text}\n</div>' for part, text in parts)
        return list(pairs.pairs_of(f'<div data-type="exercise">\n{inside}\n</div>'))

    choices = 'What is *not* \\_\\_?\n\n1.  a lung\n2.  the heart\n{: type="a"}'
    assert asked(choices, "b") == [("What is not __?", "the heart")]
    assert asked("Why?", "A long\nanswer.") == [("Why?", "A long answer.")]
    assert asked(choices, "C") == []
    assert asked("Watch this [video][1]. What is it?", "A heart.") == []
    assert asked("What is it?", "H<sub>2</sub>O") == []


def test_what_has_ended_is_not_done_again_and_what_is_missing_is(lab):
    opened, said = lab
    before = len(said)
    opened.run([])
    assert len(said) == before
    opened.result("replay", 1.0e-3, 1).unlink()
    opened.run([])
    again = [line.split()[0] for line in said[before:]]
    assert again == ["train", "retention"]


def test_a_share_of_the_base_that_is_added_later_is_measured_beside_the_others(lab):
    opened, said = lab
    arms, path = opened.arms.arms, opened.result("plain", 1.0e-3, 1)
    before, count = json.loads(path.read_text()), len(said)
    more = opened.arms.model_copy(
        update={
            "arms": {"plain": arms["plain"].model_copy(update={"rates": (1.0e-3,), "seeds": (1,), "mix": (0.5, 0.2)})}
        }
    )
    experiment.Lab(more, opened.base, opened.mixer).run(["plain"])
    assert [line.split()[0] for line in said[count:]] == ["retention"]
    assert said[-1].count("--mix") == 1
    now = json.loads(path.read_text())
    assert sorted(now["interpolated"]) == ["0.20", "0.50"]
    added = now["interpolated"].pop("0.20")
    assert now == before
    assert added != before["interpolated"]["0.50"]
    path.write_text(json.dumps(before))


def test_a_changed_arm_or_text_is_not_taken_for_the_old_one(lab):
    opened, said = lab
    arms = opened.arms.arms
    for change, told in (
        (
            {"arms": arms | {"replay": arms["replay"].model_copy(update={"set": ("train.clip=0.5",)})}},
            "another recipe or",
        ),
        (
            {"data": opened.arms.data | {"replay": ("max_epochs=9",)}},
            "got a Run of another recipe than `replay` is now",
        ),
    ):
        before = len(said)
        with pytest.raises(SystemExit, match=told):
            experiment.Lab(opened.arms.model_copy(update=change), opened.base, opened.mixer).run(["replay"])
        assert len(said) == before


def test_the_report_sets_each_arm_beside_plain_and_the_control(lab, capsys):
    opened, _ = lab
    opened.report()
    rows = {row["title"]: row for row in json.loads((opened.out / "report.json").read_text())}
    best = opened.best_rate("plain")
    plain, control = rows[f"plain at {best:g}"], rows[f"general at {best:g}"]
    assert (plain["gain_share"], plain["seeds"]) == (1.0, 2)
    assert plain["gain_less_control"] == pytest.approx(plain["gain"] - control["gain"])
    assert plain["gain"] > control["gain"]
    assert f"plain + 0.5 of the base at {best:g}" in rows
    assert "block_expansion at 0.004" in capsys.readouterr().out
    assert (opened.out / "frontier.svg").read_text().startswith("<?xml")


def test_what_guards_measured_while_arms_trained_is_a_report_too(lab, capsys):
    """Of each training that ended, and both seeds; the last measurement counts."""
    opened, _ = lab
    [run] = opened.out.glob("science-s1-*")
    begun = run / "checkpoints" / "plain-9e-01" / "guard.jsonl"
    begun.parent.mkdir()
    begun.write_text('{"tokens": 0, "gain": null, "lost": {}}\n')
    opened.report(of_guards=True)
    rows = {row["title"]: row for row in json.loads((opened.out / "guards.json").read_text())}
    rate = opened.best_rate("plain")
    guards = sorted(opened.out.glob(f"science-s?-*/checkpoints/plain-{rate:.0e}/guard.jsonl"))
    last = [json.loads(path.read_text().splitlines()[-1]) for path in guards]
    found = rows[f"plain at {rate:g}"]
    assert found["gains"] == [line["gain"] for line in last]
    assert len(last) == 2
    assert found["lost"] == {"prose": pytest.approx(sum(line["lost"]["prose"]["value"] for line in last) / 2)}
    assert f"| plain at {rate:g} | 2 |" in capsys.readouterr().out
    assert "plain at 0.9" not in rows
    assert (opened.out / "guards.svg").is_file()


def test_a_point_is_looked_at_on_documents_that_did_not_choose_it(lab):
    """Four of the twelve documents of prose are left; of the field all are in the slice."""
    opened, _ = lab
    best = opened.best_rate("plain")
    [whole] = fresh.compared(opened, "plain", best, 0.0, seeds=[1], documents=60)
    assert (whole.texts.name, whole.arm.count) == ("prose", 4)
    used = json.loads(opened.result("plain", best, 1).read_text())["slices"]
    assert next(row["difference"]["count"] for row in used if row["name"] == "prose") == 8
    assert whole.arm == whole.reference
    [mixed] = fresh.compared(opened, "plain", best, 1.0, seeds=[1], documents=60)
    assert (mixed.reference, mixed.arm.value) == (whole.reference, 0.0)
    assert "| prose (general) | 4 |" in fresh.table([mixed])
    [other], [both] = (fresh.compared(opened, "plain", best, 0.0, seeds=own, documents=60) for own in ([2], [1, 2]))
    assert both.arm.value == pytest.approx((whole.arm.value + other.arm.value) / 2)
    with pytest.raises(SystemExit, match=r"got no such model; train it with `experiment.py run plain`"):
        fresh.compared(opened, "plain", best, 0.0, seeds=[3], documents=60)


def test_an_arm_without_a_base_is_refused(tmp_path, lab):
    opened, _ = lab
    with pytest.raises(SystemExit, match="run `heal` first"):
        experiment.Lab(
            opened.arms.model_copy(update={"flat": 1.0, "heal": "adapt.yaml"}), opened.base, opened.mixer
        ).run([])


def test_names_of_arms_may_follow_the_arms_file(lab, monkeypatch, capsys):
    opened, _ = lab
    command = ["experiment.py", "build", "--arms", str(opened.base / "arms.yaml"), "plain", "nonsense"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        experiment.main()
    assert "got the arm 'nonsense', expected one of plain, general" in capsys.readouterr().err
