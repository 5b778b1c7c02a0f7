"""Region focus without alpha weights: the attention of any CLIP or SigLIP vision tower is biased.

From a chosen layer on, a patch counts in every query's attention as much as the region covers it:
log(coverage) is added to the attention logits, so its weight is multiplied by its coverage before
the weights are normalized. The class token always counts fully. Pooled output and patch tokens
both focus; a patch outside keeps its own residual, but what it gathers comes from the region.
The input is Alpha-CLIP's (`vision.pixel_values`), so the two kinds of tower are interchangeable.

The idea for the last layer: MaskCLIP, arXiv 2112.01071; for several layers: FALIP, 2407.05578.
"""

from typing import Any, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import PrefixChange
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

from .alpha import ROUNDING
from .vision import Complete, color_and_stored

LEAST_SHARE = 1e-8  # of a patch outside: finite, so that an empty region stays defined


def focus_attention(
    tower: PreTrainedModel, from_layer: int | None = None, strength: float = 1.0
) -> PreTrainedModel:
    """The tower as a class that focuses, with the same weights, shared, not copied.

    Args:
        tower: CLIPVisionModel, CLIPVisionModelWithProjection or SiglipVisionModel; it stays as it
            is. To load one from files, use the classes below: their files are the stock ones.
        from_layer: first layer whose attention is biased; negative counts from the end, so -1 is
            the last layer alone. None is the middle of the tower, a default that lets early layers
            work as trained and still reaches the second-to-last hidden state.
        strength: 1 hides what is outside, 0 changes nothing.
    """
    kind = FOCUSED.get(type(tower))
    if kind is None:
        raise TypeError(
            f"tower is a {type(tower).__name__}; expected one of "
            f"{', '.join(known.__name__ for known in FOCUSED)}."
        )
    if getattr(tower, "hf_quantizer", None) is not None:
        raise TypeError(
            f"tower is quantized, so its weights cannot be shared; load the files by "
            f"{kind.__name__}.from_pretrained(..., quantization_config=...)."
        )
    config = kind.config_class.from_dict(tower.config.to_dict())
    config.focus_from_layer, config.focus_strength = from_layer, strength
    with torch.device("meta"):
        focused = kind._from_config(config, attn_implementation=tower.config._attn_implementation)
    for name, module in focused.named_modules():
        source = tower.get_submodule(name)
        module._parameters, module._buffers = source._parameters, source._buffers
        module.training = source.training
    return focused


def attention_bias(
    stored_alpha: Float[Tensor, "batch 1 height width"],
    patch_size: int | tuple[int, int] | list[int],
    strength: float = 1.0,
) -> Float[Tensor, "batch patches"]:
    """What is added to the attention logits of each patch: the log of its share.

    The share falls from 1 where the patch's mean alpha is 1 to 1 - strength where it is 0, but not
    below LEAST_SHARE: an empty region therefore leaves the patches equal among themselves.

    Args:
        stored_alpha: an alpha map as `alpha - 1`.
        patch_size: of the tower, in pixels; an incomplete last row or column is left out, as the
            tower does.
    """
    coverage = F.avg_pool2d(stored_alpha.float() + 1, patch_size).flatten(1)
    visible = 1 - strength * (1 - coverage)
    share = visible + LEAST_SHARE * (1 - visible)
    return share.clamp(min=LEAST_SHARE / 2).log()  # half: the gradient passes at coverage 0


def _split(pixel_values: Tensor, config: Any) -> tuple[Tensor, Tensor | None]:
    """The three color channels and the patches' bias; None attends everywhere, exactly."""
    color, stored = color_and_stored(pixel_values)
    if stored is None or not (stored.requires_grad or stored.min() < -ROUNDING):
        return color, None
    return color, attention_bias(stored, config.patch_size, config.focus_strength)


class FocusedEncoder(nn.Module):
    """A tower's layers; the attention mask reaches those from `first` on."""

    def __init__(self, layers: nn.ModuleList, first: int):
        super().__init__()
        self.layers = layers
        self.first = first

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, **kwargs: object
    ) -> BaseModelOutput:
        """The tokens after the last layer."""
        tokens = inputs_embeds
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, attention_mask if index >= self.first else None, **kwargs)
        return BaseModelOutput(last_hidden_state=tokens)


def _focused_encoder(encoder: Any, config: Any) -> Any:
    depth, first = config.num_hidden_layers, config.focus_from_layer
    if first is None:
        first = min(depth // 2, max(depth - 2, 0))
    if not -depth <= first < depth:
        raise ValueError(
            f"from_layer is {first}; expected -{depth} to {depth - 1}: it has {depth} layers."
        )
    if not 0 <= config.focus_strength <= 1:
        raise ValueError(
            f"strength is {config.focus_strength}; expected 0 (no effect) to 1 (hide the outside)."
        )
    return FocusedEncoder(encoder.layers, first % depth)


@no_type_check  # transformers makes it a dataclass that takes more than its fields
class FocusedCLIPVisionConfig(CLIPVisionConfig):
    """CLIP's vision configuration with the first layer that focuses and how strongly."""

    model_type = "focused_clip_vision_model"
    focus_from_layer: int | None = None
    focus_strength: float = 1.0


@no_type_check
class FocusedSiglipVisionConfig(SiglipVisionConfig):
    """SigLIP's vision configuration with the first layer that focuses and how strongly."""

    model_type = "focused_siglip_vision_model"
    focus_from_layer: int | None = None
    focus_strength: float = 1.0


class FocusedCLIPVisionModel(Complete, CLIPVisionModel):
    """CLIP's vision transformer whose attention follows a fourth channel, `alpha - 1`."""

    __module__ = __name__.rpartition(".")[0]
    config_class = FocusedCLIPVisionConfig
    config: FocusedCLIPVisionConfig
    _supports_flash_attn = False  # it takes no bias
    _supports_flex_attn = False

    def __init__(self, config: FocusedCLIPVisionConfig):
        super().__init__(config)
        self.encoder = _focused_encoder(self.encoder, config)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool | None = False,
        **kwargs: object,
    ) -> object:
        """CLIPVisionModel's output for (batch, 3 or 4, height, width) pixel values."""
        color, bias = _split(pixel_values, self.config)
        if bias is not None:
            bias = F.pad(bias, (1, 0)).to(self.dtype)[:, None, None]
        return super().forward(color, interpolate_pos_encoding, attention_mask=bias, **kwargs)


class FocusedCLIPVisionModelWithProjection(Complete, CLIPVisionModelWithProjection):
    """The focusing tower with its projection: diffusers' image encoder."""

    __module__ = __name__.rpartition(".")[0]
    config_class = FocusedCLIPVisionConfig
    config: FocusedCLIPVisionConfig
    _supports_flash_attn = False
    _supports_flex_attn = False

    def __init__(self, config: FocusedCLIPVisionConfig):
        super().__init__(config)
        self.vision_model = FocusedCLIPVisionModel._from_config(config)
        self.post_init()


class FocusedPoolingHead(SiglipMultiheadAttentionPoolingHead):
    """SigLIP's attention pooling, whose probe looks at the region."""

    def forward(self, hidden_state: Tensor, bias: Tensor | None = None) -> Tensor:
        """(batch, width) pooled tokens; bias is (batch, tokens)."""
        if bias is None:
            return super().forward(hidden_state)
        probe = self.probe.repeat(len(hidden_state), 1, 1)
        mask = bias.repeat_interleave(self.attention.num_heads, dim=0)[:, None]
        pooled = self.attention(probe, hidden_state, hidden_state, attn_mask=mask)[0]
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


class FocusedSiglipVisionModel(Complete, SiglipVisionModel):
    """SigLIP's vision transformer whose attention, pooling too, follows a fourth channel."""

    __module__ = __name__.rpartition(".")[0]
    config_class = FocusedSiglipVisionConfig
    config: FocusedSiglipVisionConfig
    _supports_flash_attn = False
    _supports_flex_attn = False

    def __init__(self, config: FocusedSiglipVisionConfig):
        super().__init__(config)
        self.encoder = _focused_encoder(self.encoder, config)
        if self.use_head:
            self.head = FocusedPoolingHead(config)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool | None = False,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> object:
        """SiglipVisionModel's output for (batch, 3 or 4, height, width) pixel values."""
        color, bias = _split(pixel_values, self.config)
        if bias is not None:
            bias = bias.to(self.dtype)
            kwargs["attention_mask"] = bias[:, None, None]
        output = super().forward(color, interpolate_pos_encoding, return_dict=True, **kwargs)
        if bias is not None and self.use_head:
            output.pooler_output = self.head(output.last_hidden_state, bias)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()


FOCUSED: dict[type, Any] = {
    CLIPVisionModel: FocusedCLIPVisionModel,
    CLIPVisionModelWithProjection: FocusedCLIPVisionModelWithProjection,
    SiglipVisionModel: FocusedSiglipVisionModel,
}

for _name in ("FocusedCLIPVisionModel", "FocusedSiglipVisionModel"):  # as for the stock classes
    register_checkpoint_conversion_mapping(
        _name, [PrefixChange(prefix_to_remove="vision_model")], overwrite=True
    )
AutoConfig.register("focused_clip_vision_model", FocusedCLIPVisionConfig, exist_ok=True)
AutoConfig.register("focused_siglip_vision_model", FocusedSiglipVisionConfig, exist_ok=True)
AutoModel.register(FocusedCLIPVisionConfig, FocusedCLIPVisionModel, exist_ok=True)
AutoModel.register(FocusedSiglipVisionConfig, FocusedSiglipVisionModel, exist_ok=True)
