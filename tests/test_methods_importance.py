"""How much a matrix keeps of its input: known values, and the ranks that follow from them."""

import pytest
import torch
from torch import nn

from curricula.methods.importance import changes, importances
from curricula.methods.osft import Osft, protected_rank
from mixer.recipe.methods import OsftMethod
from tests.tiny_families import family, ids


class Toy(nn.Module):
    """Reads ids as one-hot rows and passes them through one matrix."""

    def __init__(self, **weights):
        super().__init__()
        for name, weight in weights.items():
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data, layer.bias.data = weight, torch.full((weight.shape[0],), 9.0)
            self.add_module(name, layer)

    def forward(self, input_ids, use_cache):
        for layer in self.children():
            layer(torch.eye(layer.in_features)[input_ids])


def measured(**weights):
    names = [f"{name}.weight" for name in weights]
    return importances(Toy(**weights), names, [torch.tensor([[0, 1], [2, 3]])])


def test_a_rotation_keeps_everything_and_a_projection_on_one_direction_keeps_little():
    turn = torch.linalg.qr(torch.randn(4, 4)).Q
    flat = torch.zeros(4, 4)
    flat[0] = 1.0
    found = measured(turn=turn, flat=flat)
    # Kept: 1 of a rotation; of the projection |mean of the four one-hot inputs| = 1/2. Their mean is 3/4.
    assert found["turn.weight"] == pytest.approx(1 / 0.75, rel=1e-5)
    assert found["flat.weight"] == pytest.approx(0.5 / 0.75, rel=1e-5)


def test_the_numbering_of_the_outputs_does_not_matter_and_neither_does_the_bias():
    weight = torch.randn(6, 4)
    mixed = torch.linalg.qr(torch.randn(6, 6)).Q @ weight
    found = measured(plain=weight, mixed=mixed)
    assert found["plain.weight"] == pytest.approx(1.0, abs=1e-5)
    assert found["mixed.weight"] == pytest.approx(1.0, abs=1e-5)


def test_importances_have_mean_one_and_decide_ranks_between_the_two_retentions():
    method = Osft(OsftMethod(kind="osft", rank="importance", min_retention=0.2, target_retention=0.6))
    assert method.needs_calibration
    model = family("llama", depth=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method.calibrate(model, [ids(4, 20), ids(2, 9)])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sum(method._importance.values()) / 14 == pytest.approx(1.0)
    assert max(method._importance.values()) > 1.02
    method.prepare(model)
    for name, importance in method._importance.items():
        weight, part = model.get_parameter(name), method._parts[name]
        assert part.left.shape[1] == protected_rank(tuple(weight.shape), 0.2 + importance * 0.4)


def test_a_retention_stays_within_its_bounds():
    method = Osft(OsftMethod(kind="osft", rank="importance"))
    method._importance = {"high": 3.0, "low": 0.0, "middle": 1.0}
    assert method._retention("high") == 1.0
    assert method._retention("low") == pytest.approx(0.1)
    assert method._retention("middle") == pytest.approx(0.8)


def test_a_block_that_doubles_the_stream_changes_no_direction_and_one_that_turns_it_does():
    class Turn(nn.Module):
        def forward(self, stream):
            return stream.flip(-1)

    class Double(nn.Module):
        def forward(self, stream):
            return (2 * stream,)

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Turn(), Double()])

        def forward(self, input_ids, use_cache):
            stream = torch.eye(4)[input_ids]
            for block in self.blocks:
                stream = block(stream)

    model = Blocks()
    assert changes(model, model.blocks, [torch.tensor([[0, 1, 3]])]) == pytest.approx([1.0, 0.0])
