"""Tasks through lm-eval, in memory and offline: each shipped template on rows of its data's form, by a small model."""

import csv
import io
import json
import math
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from curricula.retention import answers
from curricula.retention.answers import Answers, ask
from curricula.retention.measure import Subject, read_slices
from curricula.retention.report import compare_tasks, gate_of
from curricula.retention.slices import Texts
from curricula.retention.tasks import TEMPLATES, Questions, questions_of
from mixer.errors import RecipeError, SourceError
from mixer.recipe.retention import Retention, Slice, Task
from tests import toys, training
from tests.tiny_model import tiny_model

pytest.importorskip("lm_eval", reason="lm-eval is the extra `eval`")

CHOICES = ["a dog", "a river of sand", "the sun", "salt"]
ROWS = {
    "arc": lambda n: {"query": f"Question: what is {n}?", "choices": CHOICES, "gold": n % 4},
    "openbookqa": lambda n: {"query": f"In the year {n} people saw", "choices": CHOICES, "gold": n % 4},
    "sciq": lambda n: {
        "support": "Water is wet.", "question": f"What is {n}?", "correct_answer": "water",
        "distractor1": "sand", "distractor2": "rock", "distractor3": "air",
    },
    "mmlu": lambda n: {"question": f"What is {n}?", "choices": CHOICES, "answer": n % 4},
    "piqa": lambda n: {"query": f"Question: how to do {n}?\n", "choices": CHOICES[:2], "gold": n % 2},
    "boolq": lambda n: {"query": f"Passage: a text.\nQuestion: is it {n}?", "choices": ["no", "yes"], "gold": n % 2},
    "commonsenseqa": lambda n: {
        "query": f"Question: {n}?\nChoices:\nA. a\nB. b\nAnswer:", "choices": ["A", "B"], "gold": n % 2,
    },
    "lambada": lambda n: {"context": f"I look at the {n}th", "continuation": "signs"},
    "gsm8k": lambda n: {"question": f"What is {n} + 1?", "answer": f"It is {n} + 1 = {n + 1}.\n#### {n + 1}"},
    "pubmedqa": lambda n: {"context": f"Context: {n}\nA. yes\nB. no\nC. maybe\nAnswer: ", "continuation": "maybe"},
    "cmmlu": lambda n: {"Question": f"{n} 是什么", "A": "1", "B": "2", "C": "3", "D": "4", "Answer": "ABCD"[n % 4]},
    "gaokao": lambda n: {"question": f"{n}. 由此可知（\nA. 1\nB. 2\nC. 3\nD. 4\n", "answer": ["BC" if n % 3 else "D"]},
}  # fmt: skip


def write_rows(folder: Path, template: str, count: int = 12) -> Path:
    path = folder / f"{template}.jsonl"
    path.write_text("".join(json.dumps(ROWS[template](n)) + "\n" for n in range(count)))
    return path


def asked(model: Subject, folder: Path, template: str, rows: list[dict], **more) -> Answers:
    """What a model answers to rows of a shipped template."""
    path = folder / f"{template}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = questions_of(Task(template=template, path=path.name, **more), base=folder)
    return ask(model, [own], cache=folder / "cache")[template]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Subject:
    folder = tmp_path_factory.mktemp("model")
    training.chat_tokenizer(tiny_model(folder / "model", max_position_embeddings=1024))
    return Subject(folder / "model", store=folder, device="cpu")


def questions(folder: Path, template: str, **changes) -> Questions:
    path = write_rows(folder, template)
    return questions_of(Task(template=template, path=path.name, **({"max_items": 4} | changes)), base=folder)


def test_every_shipped_template_has_a_row_here():
    assert {path.stem for path in TEMPLATES.glob("*.yaml")} == set(ROWS)


def test_every_template_asks_a_real_model(model, tmp_path):
    asked = [questions(tmp_path, name, shots=int(name in ("mmlu", "gsm8k"))) for name in ROWS]
    found = ask(model, asked, cache=tmp_path / "cache")
    for one in asked:
        assert len(found[one.name].scores) == len(one.items) == 4
        assert set(found[one.name].scores) <= {0.0, 1.0}
    assert found["lambada"].accuracy == found["gsm8k"].accuracy == 0.0
    assert 0 < np.mean([one.accuracy for one in found.values()]) < 1


def test_answers_are_those_of_the_likelihoods(model, tmp_path):
    """The MMLU letter of the highest log-probability after the prompt, computed beside lm-eval."""
    own = questions(tmp_path, "mmlu", max_items=8)
    found = ask(model, [own], cache=tmp_path / "cache")["mmlu"].scores
    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(str(model.folder / "tokenizer.json")).encode
    for row, score in zip(own.items, found, strict=True):
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True))
        ids = encode(f"{row['question']}\n{listed}\nAnswer:", add_special_tokens=False).ids
        sums = []
        for letter in "ABCD":
            answer = encode(f" {letter}", add_special_tokens=False).ids
            logits = model.model(input_ids=torch.tensor([[*ids, *answer][:-1]])).logits[0].float().log_softmax(-1)
            places = range(len(ids) - 1, len(ids) + len(answer) - 1)
            sums.append(sum(logits[place, token].item() for place, token in zip(places, answer, strict=True)))
        assert score == float(int(np.argmax(sums)) == row["answer"])


def test_bits_per_byte_is_lm_evals_rolling_value(model, tmp_path):
    """Documents shorter and longer than the window; lm-eval divides the same likelihood by the same bytes."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    texts = (*(toys.sentences(n, 1 + 4 * n) for n in range(5)), "河水很清。" * 9)
    found = read_slices(model, [Texts("s", "general", tuple("abcdef"), texts)], window=64, cache=tmp_path)["s"]
    tokenizer = AutoTokenizer.from_pretrained(model.folder, local_files_only=True)
    with answers._quiet():
        lm = HFLM(pretrained=model.model, tokenizer=tokenizer, batch_size=2, max_length=64, softmax_dtype="float32")
        asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
        nats = lm.loglikelihood_rolling(asked, disable_tqdm=True)
    theirs = [-own / math.log(2) / len(text.encode()) for own, text in zip(nats, texts, strict=True)]
    assert found.bits / found.texts.sizes == pytest.approx(np.array(theirs), abs=1e-3)


def test_items_are_chosen_by_hash_and_no_example_is_an_item(tmp_path):
    path = write_rows(tmp_path, "arc", 40)
    own = questions_of(Task(template="arc", path=path.name, shots=3, max_items=10), base=tmp_path)
    assert (len(own.shots), len(own.items)) == (3, 10)
    assert not {row["query"] for row in own.shots} & {row["query"] for row in own.items}
    assert [row["query"] for row in own.items] != [ROWS["arc"](n)["query"] for n in range(10)]
    assert own == questions_of(Task(template="arc", path=path.name, shots=3, max_items=10), base=tmp_path)


def test_rows_that_do_not_fit_are_left_out(tmp_path):
    own = questions(tmp_path, "gaokao", max_items=100)
    assert {tuple(row["answer"]) for row in own.items} == {("D",)}
    assert len(own.items) == 4


def test_csv_in_a_tar_is_read(tmp_path):
    table = io.StringIO()
    csv.writer(table).writerows(
        [["", "Question", "A", "B", "C", "D", "Answer"], *([n, f"水是什么{n}", "1", "2", "3", "4", "C"] for n in "01")]
    )
    content = table.getvalue().encode()
    with tarfile.open(tmp_path / "cmmlu.tar", "w") as tar:
        entry = tarfile.TarInfo("test/agronomy.csv")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    own = questions_of(Task(template="cmmlu", path="cmmlu.tar"), base=tmp_path)
    assert {row["Question"] for row in own.items} == {"水是什么0", "水是什么1"}


def test_a_task_file_of_ones_own_is_data(model, tmp_path):
    """lm-eval's format as far as it goes without code."""
    write_rows(tmp_path, "arc")
    config = yaml.safe_load((TEMPLATES / "arc.yaml").read_text()) | {"task": "mine", "dataset_path": "hub/name"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    own = questions_of(Task(template="mine.yaml", path="arc.jsonl", max_items=3), base=tmp_path)
    assert own.name == "mine"
    assert len(ask(model, [own], cache=tmp_path / "cache")["mine"].scores) == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{output_type: loglikelihood_rolling, metric_list: [{metric: a}]}", "which judges no items"),
        ("{output_type: multiple_choice, metric_list: [acc]}", r"metric_list: got \['acc'\], expected a list such as"),
        ("{output_type: multiple_choice, metric_list: acc}", "metric_list: got 'acc', expected a list such as"),
        ("process_docs: !function evil.run\noutput_type: multiple_choice", "expected plain YAML"),
        ("doc_to_text: a", "got a task without output_type and metric_list"),
        ("[1, 2]", "got a task without output_type and metric_list"),
        (b"output_type: \xff", "got 'utf-8' codec can't decode byte 0xff in position 13: invalid start byte"),
    ],
)
def test_a_task_file_with_code_or_without_a_metric_is_refused(tmp_path, content, told):
    (tmp_path / "odd.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=told):
        questions_of(Task(template="odd.yaml", path="x.jsonl"), base=tmp_path)


def test_unknown_templates_and_missing_items_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="unknown template 'mmul'; did you mean `mmlu`"):
        questions_of(Task(template="mmul", path="x.jsonl"), base=tmp_path)
    path = write_rows(tmp_path, "arc", 3)
    with pytest.raises(SourceError, match="got 3 rows that fit the template, expected 5 for `shots` and two items at"):
        questions_of(Task(template="arc", path=path.name, shots=5), base=tmp_path)
    with pytest.raises(SourceError, match="got 3 rows that fit the template, expected 2 for `shots` and two items at"):
        questions_of(Task(template="arc", path=path.name, shots=2), base=tmp_path)


def test_a_template_that_lm_eval_refuses_is_named(model, tmp_path):
    own = questions(tmp_path, "arc")
    broken = Questions("arc", {**own.config, "output_type": "sing"}, own.metric, own.items, own.shots, own.places)
    with pytest.raises(
        RecipeError,
        match=r"retention.tasks.arc: got what lm-eval refuses, in the template or in the first row \(.*arc.jsonl:\d+\)",
    ):
        ask(model, [broken], cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("where", "told"),
    [("'{{answer[0'", "expected a condition in Jinja"), ("true", "`where`: got True, expected a condition in Jinja")],
)
def test_a_condition_that_is_none_is_refused(tmp_path, where, told):
    path = write_rows(tmp_path, "arc")
    (tmp_path / "odd.yaml").write_text(f"where: {where}\n{(TEMPLATES / 'arc.yaml').read_text()}")
    with pytest.raises(RecipeError, match=told):
        questions_of(Task(template="odd.yaml", path=path.name), base=tmp_path)


def test_a_row_without_the_fields_of_a_condition_is_named(tmp_path):
    path = write_rows(tmp_path, "arc")
    with pytest.raises(SourceError, match=r"arc.jsonl:1: `where`: got 'answer' is undefined, expected a row"):
        questions_of(Task(template="gaokao", path=path.name), base=tmp_path)


def test_a_row_without_a_field_that_others_have_is_named_and_not_asked_as_none(tmp_path):
    path = write_rows(tmp_path, "lambada", 3)
    path.write_text(path.read_text() + json.dumps({"context": "I look at the", "note": None}) + "\n")
    with pytest.raises(SourceError, match=r"lambada.jsonl:4: got a row without continuation, expected it"):
        questions_of(Task(template="lambada", path=path.name), base=tmp_path)


@pytest.mark.parametrize(
    ("template", "row", "told"),
    [
        ("pubmedqa", {"context": "a", "continuation": "Yes"}, "ValueError: 'Yes' is not in list"),
        ("arc", {"query": "What is it?", "choices": CHOICES, "gold": "first"}, "Arrow"),
    ],
)
def test_a_row_that_does_not_fit_the_template_is_no_traceback(model, tmp_path, template, row, told):
    path = write_rows(tmp_path, template, 3)
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    own = questions_of(Task(template=template, path=path.name), base=tmp_path)
    with pytest.raises(RecipeError, match=rf"retention.tasks.{template}: got .*{told}"):
        ask(model, [own], cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("template", "change", "told"),
    [
        ("arc", {"gold": "0"}, "got the right answer '0', expected a whole number from 0 to 3 or one of the choices"),
        ("arc", {"gold": -1}, "got the right answer -1, expected a whole number from 0 to 3"),
        ("mmlu", {"answer": "2"}, "got the right answer '2', expected a whole number from 0 to 3"),
    ],
)
@pytest.mark.parametrize("shots", [0, 3])
def test_a_right_answer_that_is_none_of_the_choices_is_named(model, tmp_path, template, change, told, shots):
    """lm-eval would count each such row as wrong, before and after: nothing lost, and the gate passes."""
    rows = [ROWS[template](n) | change for n in range(5)]
    with pytest.raises(RecipeError, match=rf"{template}.jsonl:\d: {told}"):
        asked(model, tmp_path, template, rows, shots=shots)


def test_a_right_answer_beyond_the_choices_is_refused_in_any_row(model, tmp_path):
    """Of the first row lm-eval sees it itself, of others it would count each as wrong."""
    rows = [ROWS["arc"](n) for n in range(6)]
    for odd in rows:
        with pytest.raises(RecipeError, match=r"arc.jsonl:\d: got the right answer 4|in the first row"):
            asked(model, tmp_path, "arc", [row | {"gold": 4} if row is odd else row for row in rows])


def test_rows_that_lack_the_answer_altogether_are_refused(model, tmp_path):
    rows = [{"query": ROWS["arc"](n)["query"], "choices": CHOICES} for n in range(5)]
    with pytest.raises(RecipeError, match=r"arc.jsonl:\d: got the right answer 'gold', expected a whole number"):
        asked(model, tmp_path, "arc", rows)


def test_letters_may_be_the_right_answers(model, tmp_path):
    rows = [ROWS["mmlu"](n) for n in range(8)]
    by_number = asked(model, tmp_path, "mmlu", rows)
    by_letter = asked(model, tmp_path, "mmlu", [row | {"answer": "ABCD"[row["answer"]]} for row in rows])
    # Every letter is right twice in eight, so no model that chooses letters has none.
    assert by_letter.accuracy == by_number.accuracy > 0


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("{metric: perplexity}", "metric perplexity: got one of which less is better, expected more"),
        ("{metric: perplexity, higher_is_better: true}", "expected a number from 0 to 1"),
        ("{metric: acc, higher_is_better: false}", "metric acc: got one of which less is better"),
    ],
)
def test_a_metric_that_is_no_share_of_right_answers_is_refused(model, tmp_path, metric, told):
    path = write_rows(tmp_path, "lambada", 4)
    template = yaml.safe_load((TEMPLATES / "lambada.yaml").read_text()) | {"metric_list": [yaml.safe_load(metric)]}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(template))
    own = questions_of(Task(template="odd.yaml", path=path.name), base=tmp_path)
    with pytest.raises(RecipeError, match=told):
        ask(model, [own], cache=tmp_path / "cache")


def test_a_tokenizer_that_transformers_refuses_is_no_traceback(model, tmp_path):
    shutil.copytree(model.folder, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": {"content": "<bos>"}}))
    odd = Subject(tmp_path / "model", store=tmp_path, device="cpu")
    with pytest.raises(RecipeError, match=r"model: got a tokenizer that transformers refuses: TypeError"):
        ask(odd, [questions(tmp_path, "arc")], cache=tmp_path / "cache")


def test_a_loss_of_answers_is_judged_item_by_item():
    """30 items: 10 of 20 right ones lost, none won: McNemar 2 / 2 ** 10; at most ten points were allowed."""
    own = Questions("arc", {}, "acc", ({},) * 30, (), ())
    rules = Retention(slices={"general": Slice(path="g.jsonl")}, replicates=500, max_drop=0.1)
    before, after = np.r_[np.ones(20), np.zeros(10)], np.r_[np.ones(10), np.zeros(20)]
    [found] = compare_tasks({"arc": Answers(own, before)}, {"arc": Answers(own, after)}, rules, seed=1)
    assert (found.before, found.after, found.verdict) == (pytest.approx(2 / 3), pytest.approx(1 / 3), "lost")
    assert found.corrected == pytest.approx(2 / 2**10)
    assert gate_of([found], rules).reasons[0].startswith("arc lost 0.333 of its items")
    [same] = compare_tasks({"arc": Answers(own, before)}, {"arc": Answers(own, before)}, rules, seed=1)
    assert (same.verdict, same.corrected) == ("kept", 1.0)
    strict = rules.model_copy(update={"max_drop": 0.03})
    [same] = compare_tasks({"arc": Answers(own, before)}, {"arc": Answers(own, before)}, strict, seed=1)
    assert same.verdict == "unclear", "30 items without a change cannot rule out that 3% are lost"
