"""Methods on a model that FSDP2 has sharded over two processes: the same weights as on one."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn

from curricula.methods.choose import method_of
from curricula.methods.weights import agreed, whole
from mixer.recipe.methods import BlockExpansionMethod, LoraMethod, OsftMethod
from tests.tiny_families import family, train

SECTIONS = {
    "osft": OsftMethod(kind="osft", share=0.4, every=3),
    "lora": LoraMethod(kind="lora", rank=4, alpha=8.0),
    "block_expansion": BlockExpansionMethod(kind="block_expansion", groups=2),
}


def trained(kind, *, shard):
    """Saved weights and figures after four steps, whole."""
    method = method_of(SECTIONS[kind], base=Path(), seed=7)
    model = method.prepare(family("llama", depth=2))
    if shard:
        mesh = init_device_mesh("cpu", (2,))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    train(model, method, 4, weight_decay=0.1)
    saved = method.export(model).state_dict()
    return {name: whole(tensor).detach().clone() for name, tensor in saved.items()}, method.figures(model)


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    assert agreed({"rank": rank}) == {"rank": 0}
    assert agreed(torch.tensor([rank])).tolist() == [0]
    found = {kind: trained(kind, shard=True) for kind in SECTIONS}
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_the_same_weights_as_one(tmp_path):
    spawn(work, args=(str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "found.pt")
    for kind in SECTIONS:
        weights, figures = trained(kind, shard=False)
        assert found[kind][0].keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(found[kind][0][name], value, rtol=0, atol=2e-5)
        assert found[kind][1] == pytest.approx(figures, rel=0.02, abs=1e-5)
