"""OSFT: the projection by hand, what a step may not touch, resumes, and tasks one after another."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from curricula.methods.osft import Osft, Subspace, extend, leaked, project, protected_rank, split
from mixer.errors import RecipeError
from mixer.recipe.methods import OsftMethod
from tests.tiny_families import FAMILIES, family, logits, train

MODES = ("block", "left", "right", "both")
FIRST = "model.layers.0.self_attn.q_proj.weight"


def osft(*, base=None, **keys):
    return Osft(OsftMethod(kind="osft", **keys), **({"base": base} if base else {}))


def test_the_modes_by_hand():
    update = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    left = right = torch.tensor([[1.0], [0.0]])
    found = {mode: project(update, left, right, protect=mode).tolist() for mode in MODES}
    assert found == {
        "block": [[0.0, 2.0], [3.0, 4.0]],
        "left": [[0.0, 0.0], [3.0, 4.0]],
        "right": [[0.0, 2.0], [0.0, 4.0]],
        "both": [[0.0, 0.0], [0.0, 4.0]],
    }


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(MODES), st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_projecting_twice_is_projecting_once(rows, columns, mode, seed, data):
    torch.manual_seed(seed)
    part = split(torch.randn(rows, columns), data.draw(st.integers(1, min(rows, columns))))
    once = project(torch.randn(rows, columns), part.left, part.right, protect=mode)
    twice = project(once, part.left, part.right, protect=mode)
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-5)


def test_the_bases_are_the_largest_singular_directions():
    weight = torch.diag(torch.tensor([1.0, 5.0, 3.0]))
    part = split(weight, 2)
    assert part.left.abs().round().tolist() == [[0, 0], [1, 0], [0, 1]]
    assert part.right.abs().round().tolist() == [[0, 0], [1, 0], [0, 1]]


def test_the_bases_of_a_square_matrix_at_half_rank_hold_as_many_numbers_as_the_matrix():
    d = 8
    part = split(torch.randn(d, d), protected_rank((d, d), 0.5))
    factors = part.left.numel() + part.right.numel()
    assert factors == d * d
    # With its singular values, as other implementations store them, such a half has d^2 + d/2 numbers.
    assert factors + part.left.shape[1] == d * d + d // 2


@pytest.mark.parametrize(
    ("shape", "retention", "rank"),
    [((576, 192), 0.5, 96), ((10, 30), 0.29, 2), ((10, 30), 0.01, 1), ((10, 30), 1.4, 10)],
)
def test_ranks_by_hand(shape, retention, rank):
    assert protected_rank(shape, retention) == rank


@pytest.mark.parametrize("number", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_a_hundred_adamw_steps_with_weight_decay_do_not_leak(mode, number):
    method = osft(protect=mode, share=0.4)
    model = method.prepare(family("llama", depth=1))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, method, 100, weight_decay=0.1, autocast=number is torch.bfloat16)
    seen = 0
    for name, part in method._parts.items():
        update = model.get_parameter(name).double() - start[name].double()
        rest = update - project(update, part.left.double(), part.right.double(), protect=mode)
        assert rest.norm() / update.norm() < 1e-3
        seen += 1
    assert seen == 7
    assert method.figures(model)["leak_worst"] < 1e-3
    assert method.figures(model)["update"] > 0.01


def test_a_projected_gradient_alone_would_leak():
    """Why the projection comes after the step."""

    class Before(Osft):
        def before_step(self, model):
            for name, part in self._parts.items():
                weight = model.get_parameter(name)
                weight.grad = project(weight.grad, part.left, part.right, protect="block")

        def after_step(self, model):
            pass

    method = Before(OsftMethod(kind="osft"))
    model = method.prepare(family("llama", depth=2))
    train(model, method, 100)
    assert method.figures(model)["leak"] > 0.1


def test_parameters_in_bfloat16_leak_by_their_rounding():
    method = osft()
    model = method.prepare(family("llama", depth=2, dtype=torch.bfloat16))
    assert all(part.left.dtype == torch.float32 for part in method._parts.values())
    train(model, method, 20)
    assert 1e-3 < method.figures(model)["leak"] < 0.3


def test_an_output_does_not_change_for_a_protected_input():
    method = osft(protect="right")
    model = method.prepare(family("llama", depth=2))
    before = model.get_parameter(FIRST).detach().clone()
    train(model, method, 10)
    after = model.get_parameter(FIRST).detach()
    right = method._parts[FIRST].right
    torch.testing.assert_close(after @ right, before @ right, rtol=0, atol=1e-6)
    assert (after - before).norm() > 0.01


def test_weights_that_did_not_change_are_not_touched():
    method = osft()
    model = method.prepare(family("llama", depth=2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method.after_step(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert method.figures(model) == {"leak": 0.0, "leak_worst": 0.0, "update": 0.0}


def test_the_anchor_takes_two_bytes_where_that_loses_nothing():
    rough = torch.randn(4, 4).bfloat16().float()
    assert split(rough, 1).anchor.dtype == torch.bfloat16
    assert split(rough + 1e-6, 1).anchor.dtype == torch.float32


@pytest.mark.parametrize("others", ["train", "freeze"])
def test_parameters_of_no_target_train_unless_they_are_frozen(others):
    method = osft(others=others)
    model = method.prepare(family("qwen3", depth=2))
    names = [name for name, _ in method.trainable(model)]
    assert ("model.embed_tokens.weight" in names) is (others == "train")
    assert len([name for name in names if name.endswith("_proj.weight")]) == 14


def test_only_targets_are_protected():
    method = osft(targets=("q_proj", "*_proj_of_nothing", "down*"))
    method.prepare(family("llama", depth=2))
    assert {name.split(".")[-2] for name in method._parts} == {"q_proj", "down_proj"}
    with pytest.raises(RecipeError, match=r"targets: got \['c_attn'\]") as caught:
        osft(targets=("c_attn",)).prepare(family("llama", depth=2))
    assert "last part" in caught.value.hint


def test_with_every_three_the_constraint_holds_at_each_third_step_and_in_what_is_saved(tmp_path):
    method = osft(every=3)
    model = method.prepare(family("llama", depth=2))
    optimizer = train(model, method, 3)
    assert method.figures(model)["leak"] < 1e-5
    train(model, method, 2, start=3, optimizer=optimizer)
    assert method.figures(model)["leak"] > 1e-3
    live = {name: value.clone() for name, value in model.state_dict().items()}
    method.export(model).save_pretrained(tmp_path)
    assert all(torch.equal(value, live[name]) for name, value in model.state_dict().items())
    back = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert method.figures(back)["leak"] < 1e-5
    assert torch.equal(back.model.embed_tokens.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize("every", [1, 3])
def test_a_resume_gives_the_same_weights_to_the_last_bit(every):
    def fresh():
        method = osft(every=every)
        return method, method.prepare(family("llama", depth=2))

    method, model = fresh()
    optimizer = train(model, method, 4)
    held = {name: value.clone() for name, value in model.state_dict().items()}
    state, moments = (
        {key: value.clone() for key, value in method.state().items()},
        copy.deepcopy(optimizer.state_dict()),
    )
    again, resumed = fresh()
    again.load_state(state)
    resumed.load_state_dict(held)
    late = torch.optim.AdamW(list(resumed.parameters()), lr=1e-3, weight_decay=0.0)
    late.load_state_dict(moments)
    train(model, method, 4, start=4, optimizer=optimizer)
    train(resumed, again, 4, start=4, optimizer=late)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_a_plain_model(name, tmp_path):
    method = osft()
    model = method.prepare(family(name, depth=2))
    train(model, method, 3)
    method.export(model).save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_a_second_task_keeps_what_was_protected_and_protects_what_the_first_used():
    weight = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    first = split(weight, 1)
    used = weight.clone()
    used[2, 3] = 1.0
    both = extend(first, used, 2)
    assert both.left.abs().round(decimals=4).T.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert both.right.abs().round(decimals=4).T.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert torch.equal(both.anchor.float(), used)
    more = extend(first, used, 4)
    assert more.left.shape == (4, 2), "only one direction was used; rounding is not protected"


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 99), st.data())
@settings(max_examples=40, deadline=None)
def test_extended_bases_are_orthonormal_and_begin_with_the_old(rows, columns, seed, data):
    torch.manual_seed(seed)
    old = split(torch.randn(rows, columns), data.draw(st.integers(1, min(rows, columns))))
    new = extend(old, old.anchor.float() + torch.randn(rows, columns), data.draw(st.integers(1, min(rows, columns))))
    for before, after in ((old.left, new.left), (old.right, new.right)):
        assert torch.equal(after[:, : before.shape[1]], before)
        torch.testing.assert_close(after.T @ after, torch.eye(after.shape[1]), rtol=0, atol=1e-5)


def test_a_later_training_takes_up_the_state_of_an_earlier_one(tmp_path):
    first = osft(share=0.3)
    model = first.prepare(family("llama", depth=2))
    base = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, first, 20)
    save_file(first.state(), tmp_path / "method.safetensors")
    learned = {name: value.clone() for name, value in model.state_dict().items()}

    second = osft(share=0.5, continues="method.safetensors", base=tmp_path)
    model = second.prepare(model)
    train(model, second, 20, start=50)
    for name, old in first._parts.items():
        part, after = second._parts[name], model.get_parameter(name).detach()
        whole, late = after - base[name], after - learned[name]
        assert (old.left.T @ whole @ old.right).norm() < 1e-3 * whole.norm(), "the first protection still holds"
        assert (part.left.T @ late @ part.right).norm() < 1e-3 * late.norm()
        main = torch.linalg.svd(learned[name] - base[name])[0][:, 0]
        assert (part.left.T @ main).norm() > 0.99, "the direction that the first task used most is protected"


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    method = osft(share=0.5, targets=("q_proj",))
    model = method.prepare(family("llama", depth=2))
    train(model, method, 2)
    save_file(method.state(), tmp_path / "method.safetensors")
    for keys, what in (
        ({"continues": "nothing.safetensors"}, "without `model.layers.0.self_attn.q_proj.weight`"),
        ({"continues": "method.safetensors"}, "without `model.layers.0.self_attn.k_proj.weight`"),
        ({"continues": "method.safetensors", "targets": ("q_proj",)}, "expected a training that protected less"),
    ):
        with pytest.raises(RecipeError, match=what) as caught:
            osft(base=tmp_path, **keys).prepare(model)
        assert caught.value.hint


def test_the_subspace_follows_the_weights_to_another_device():
    part = split(torch.randn(3, 3), 1).to(torch.device("meta"))
    assert isinstance(part, Subspace)
    assert {part.left.device.type, part.right.device.type, part.anchor.device.type} == {"meta"}


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(MODES), st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_what_leaks_is_what_a_projection_would_take_away(rows, columns, mode, seed, data):
    torch.manual_seed(seed)
    part = split(torch.randn(rows, columns), data.draw(st.integers(1, min(rows, columns))))
    update = torch.randn(rows, columns)
    taken = update - project(update, part.left, part.right, protect=mode)
    assert leaked(update, part.left, part.right, protect=mode) == pytest.approx(float(taken.norm()), abs=1e-5)


def test_a_step_and_its_figures_project_each_matrix_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "curricula.methods.osft.project", lambda *args, **keys: calls.append(1) or project(*args, **keys)
    )
    method = osft()
    model = method.prepare(family("llama", depth=2))
    train(model, method, 1)
    method.figures(model)
    assert len(calls) == 14


def test_a_state_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "junk.safetensors").write_bytes(b"xx")
    save_file({f"{FIRST}.left": torch.ones(1)}, tmp_path / "half.safetensors")
    for name in ("junk", "half"):
        with pytest.raises(RecipeError, match=rf"got '{name}.safetensors', which cannot be read") as caught:
            osft(continues=f"{name}.safetensors", base=tmp_path).prepare(family("llama", depth=2))
        assert "last checkpoint" in caught.value.hint


def test_a_state_that_lacks_a_matrix_is_not_taken_back():
    method = osft()
    method.prepare(family("llama", depth=2))
    state = {name: value for name, value in method.state().items() if not name.startswith(FIRST)}
    with pytest.raises(KeyError, match=FIRST):
        method.load_state(state)
