"""LoRA by peft: the weight in force by hand, and every map on every backbone."""

import subprocess
import sys

import pytest
import torch

from sslaudio.adapters.lora import MAPS, Config, build
from sslaudio.backbones import blocks

BATCH = (
    torch.randn(2, 64, 96, generator=torch.Generator().manual_seed(1)),
    torch.tensor([96, 96]),
)


def adapted(encoder, **settings):
    torch.manual_seed(1)
    adapter = build(Config(**settings))
    adapter.adapt(encoder)
    return adapter


def lively(encoder) -> None:
    """As after training: B is no longer 0."""
    for name, weight in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)


@pytest.mark.parametrize("backbone", ["ast", "mast"])
def test_a_merged_weight_is_the_products_added_by_hand(small_encoder, backbone):
    encoder = small_encoder(backbone)
    plain = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    adapter = adapted(encoder, rank=2, alpha=6)
    lively(encoder)
    learned = dict(encoder.backbone.named_parameters())
    expected = {}
    for name, value in plain.items():
        stem = name.removesuffix(".weight")
        if f"{stem}.lora_A.default.weight" in learned:
            down, up = (learned[f"{stem}.lora_{part}.default.weight"] for part in "AB")
            assert down.shape[0] == up.shape[1] == 2
            expected[name] = value + 6 / 2 * up.detach() @ down.detach()

    adapter.merge(encoder)

    assert len(expected) == 4 * len(encoder.backbone.blocks)
    for name, value in encoder.backbone.state_dict().items():
        assert torch.allclose(value, expected.get(name, plain[name]), atol=1e-6), name


@pytest.mark.parametrize("target", MAPS)
@pytest.mark.parametrize("backbone", ["ast", "mast"])
def test_every_adapted_map_of_every_block_has_its_effect(small_encoder, backbone, target):
    encoder = small_encoder(backbone, pooled_block=4)
    adapted(encoder, targets=(target,))
    encoder.embed(*BATCH).square().mean().backward()
    before = encoder.embed(*BATCH).detach()
    for number in range(4):
        part = encoder.backbone.get_submodule(f"blocks.{number}.{MAPS[target]}")
        weight = part.lora_B.default.weight
        assert weight.grad.any(), number

        torch.nn.init.normal_(weight, std=0.1)

        assert not torch.allclose(encoder.embed(*BATCH), before, atol=1e-4), number
        torch.nn.init.zeros_(weight)
    last = encoder.backbone.get_submodule(f"blocks.4.{MAPS[target]}")
    assert type(last).__module__ == "sslaudio.backbones.linear"


def test_masts_queries_keys_and_values_each_feel_it(small_encoder):
    encoder = small_encoder("mast")
    adapted(encoder, targets=("qkv",))
    encoder.embed(*BATCH).square().mean().backward()

    for number, block in enumerate(encoder.backbone.blocks):
        parts = block.attn.qkv.lora_B.default.weight.grad.chunk(3)
        assert all(part.any() for part in parts), number


def test_a_dropout_is_the_same_where_steps_are_done_again(small_encoder, monkeypatch):
    gradients = []
    for large in (1 << 40, 1):
        monkeypatch.setattr(blocks, "LARGE", large)
        encoder = small_encoder("ast")
        adapted(encoder, dropout=0.5, targets=("fc2",))
        lively(encoder)
        encoder.train()
        torch.manual_seed(5)
        encoder.embed(*BATCH).square().mean().backward()
        gradients.append(
            torch.cat([w.grad.flatten() for w in encoder.parameters() if w.requires_grad])
        )

    assert torch.allclose(*gradients, rtol=1e-5)


def test_peft_is_imported_where_it_serves_only():
    code = "import sys, sslaudio.finetune, sslaudio.adapters.lora as l; l.build(l.Config()); "
    code += "sys.exit('peft' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_merging_what_was_never_adapted_is_refused(small_encoder):
    with pytest.raises(ValueError, match=r"lora has nothing to merge"):
        build(Config()).merge(small_encoder("ast"))
