"""Muon beside PyTorch's own, and what its steps are."""

import pytest
import torch

from alphaclip_gen.mini import muon
from alphaclip_gen.mini.muon import Muon, orthogonal


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is of torch 2.9")
def test_steps_are_those_of_pytorch_s_own():
    """Up to bfloat16, in which PyTorch's multiplies; matrices of several shapes, one left alone."""
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((24, 48), (48, 24), (24, 48), (8, 8))]
    ends = []
    for kind, more in ((Muon, {}), (torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"})):
        matrices = [torch.nn.Parameter(matrix.clone()) for matrix in start]
        optimizer = kind(matrices, lr=0.1, weight_decay=0.05, **more)
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            for matrix in matrices[:3]:
                matrix.grad = torch.randn(matrix.shape, generator=generator)
            optimizer.step()
        ends.append(matrices)
    for ours, theirs, begun in zip(*ends, start, strict=True):
        moved = theirs - begun
        assert (ours - theirs).norm() <= 0.02 * moved.norm()
    assert torch.equal(ends[0][3], start[3])


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8)])
def test_orthogonal_keeps_directions_and_evens_their_lengths(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double().float()
    made = orthogonal(matrices)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ made @ right.mT
    off = turned - torch.diag_embed(turned.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 0.05


def test_a_resumed_run_goes_on_from_its_momentum():
    def steps(optimizer, matrix, seeds):
        for seed in seeds:
            matrix.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
            optimizer.step()

    whole = torch.nn.Parameter(torch.ones(4, 6))
    steps(Muon([whole]), whole, range(4))
    first = torch.nn.Parameter(torch.ones(4, 6))
    half = Muon([first])
    steps(half, first, range(2))
    second = torch.nn.Parameter(first.detach().clone())
    resumed = Muon([second])
    resumed.load_state_dict(half.state_dict())
    steps(resumed, second, range(2, 4))
    assert torch.equal(whole, second)


def test_only_matrices_are_taken():
    with pytest.raises(ValueError, match=r"params holds a tensor of shape \(3,\); expected matri"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize(
    ("capability", "half"), [("AVX2", False), ("DEFAULT", False), ("AVX512", True)]
)
def test_bfloat16_is_used_where_the_cpu_has_it(monkeypatch, capability, half):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with muon.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if half else torch.float32)
