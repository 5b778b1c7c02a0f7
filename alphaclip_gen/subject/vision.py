"""BLIP-Diffusion's vision tower with a region: CLIP's in BLIP-2's layout, and an alpha channel.

State-dict keys are those of diffusers' Blip2VisionModel, with `embeddings.patch_embedding_alpha`
beside them. Source: BLIP-Diffusion, arXiv 2305.14720; Alpha-CLIP, arXiv 2312.03818.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Blip2VisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from ..vision import AlphaConvolution, color_and_stored
from .layers import Block, Encoder, attend
from .loading import CompleteModel

SHARED = (
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
    "hidden_act",
)


class VisionEmbeddings(nn.Module):
    """Class token and patches of color and alpha, with their positions."""

    def __init__(self, config: Blip2VisionConfig):
        super().__init__()
        width = config.hidden_size
        side, patch = _square(config.image_size), _square(config.patch_size)
        tokens = 1 + (side // patch) ** 2
        self.class_embedding = nn.Parameter(torch.randn(1, 1, width))
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        self.patch_embedding_alpha = AlphaConvolution(1, width, patch, patch, bias=False)
        self.position_embedding = nn.Parameter(torch.randn(1, tokens, width))

    def forward(self, pixel_values: Tensor) -> Tensor:
        pixel_values = pixel_values.to(self.patch_embedding.weight.dtype)
        color, stored = color_and_stored(pixel_values)
        patches = self.patch_embedding(color) + self.patch_embedding_alpha(stored)
        patches = patches.flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), -1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding


class VisionAttention(nn.Module):
    def __init__(self, config: Blip2VisionConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        dropout = self.dropout if self.training else 0.0
        return self.projection(attend(query, key, value, self.heads, keys=bias, dropout=dropout))


class AlphaBlip2VisionModel(CompleteModel):
    """All tokens of the vision tower; fresh alpha weights leave a published tower unchanged."""

    __module__ = "alphaclip_gen"
    config_class = Blip2VisionConfig
    config: Blip2VisionConfig
    _no_split_modules = ["Block"]  # noqa: RUF012
    _keys_to_ignore_on_load_missing = [r"patch_embedding_alpha\.weight"]  # noqa: RUF012

    def __init__(self, config: Blip2VisionConfig):
        super().__init__(config)
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.embeddings = VisionEmbeddings(config)
        self.pre_layernorm = nn.LayerNorm(width, eps=epsilon)
        blocks = range(config.num_hidden_layers)
        self.encoder = Encoder([Block(config, VisionAttention(config)) for _ in blocks])
        self.post_layernorm = nn.LayerNorm(width, eps=epsilon)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, AlphaConvolution):
            nn.init.zeros_(module.weight)
            return
        super()._init_weights(module)
        if isinstance(module, VisionEmbeddings):
            std = self.config.initializer_range
            nn.init.trunc_normal_(module.class_embedding, std=std)
            nn.init.trunc_normal_(module.position_embedding, std=std)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(
        self, pixel_values: Float[Tensor, "batch colors height width"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """Normalized tokens, the class token first.

        Args:
            pixel_values: normalized color, and `alpha - 1` as an optional fourth channel; without
                it every patch is attended to.
        """
        side = _square(self.config.image_size)
        if pixel_values.shape[1] not in (3, 4) or pixel_values.shape[-2:] != (side, side):
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; expected (batch, 3 or 4, "
                f"{side}, {side}): color, and alpha - 1. AlphaBlipImageProcessor makes it."
            )
        tokens = self.pre_layernorm(self.embeddings(pixel_values))
        return self.post_layernorm(self.encoder(tokens))


def _square(size: int | list[int] | tuple[int, int]) -> int:
    """The side of a square that a config may give as two numbers."""
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise ValueError(f"the config has a size of {size}; expected a square.")
    return sides.pop()


def load_alpha_clip(
    tower: AlphaBlip2VisionModel, source: CLIPVisionModel | CLIPVisionModelWithProjection
) -> AlphaBlip2VisionModel:
    """The tower itself, its weights now those of an Alpha-CLIP (or plain CLIP) of the same size.

    BLIP-Diffusion reads the tokens before CLIP's last blocks, through a norm of its own: that norm
    (`post_layernorm`) is kept, and the blocks that it has no place for are dropped.

    Args:
        tower: the vision tower of a Q-Former, `pipe.qformer.visual_encoder`.
        source: for example an AlphaCLIPVisionModel of ViT-L/14.
    """
    model = getattr(source, "vision_model", source)
    _check_same_shape(tower, model.config)
    state = tower.state_dict() | _translated(model.state_dict(), tower.config.num_hidden_layers)
    epsilon = model.config.layer_norm_eps
    tower.load_state_dict(state)
    tower.config.layer_norm_eps = epsilon
    for module in tower.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = epsilon
    return tower


def _check_same_shape(tower: AlphaBlip2VisionModel, config: object) -> None:
    differing = [
        f"{name} {getattr(config, name)} instead of {getattr(tower.config, name)}"
        for name in SHARED
        if getattr(config, name) != getattr(tower.config, name)
    ]
    blocks = getattr(config, "num_hidden_layers", 0)
    if blocks < tower.config.num_hidden_layers:
        differing.append(f"{blocks} blocks instead of {tower.config.num_hidden_layers} or more")
    if differing:
        raise ValueError(
            f"source does not fit the vision tower: {', '.join(differing)}. Published "
            f"BLIP-Diffusion takes a CLIP or Alpha-CLIP ViT-L/14 of 224 pixels."
        )


def _translated(source: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """CLIP's weights under the tower's names; what the tower has no place for is left out."""
    clip, blip = "embeddings.", "embeddings."
    found = {
        f"{blip}class_embedding": source[f"{clip}class_embedding"].view(1, 1, -1),
        f"{blip}position_embedding": source[f"{clip}position_embedding.weight"][None],
        f"{blip}patch_embedding.weight": source[f"{clip}patch_embedding.weight"],
        f"{blip}patch_embedding_alpha.weight": source.get(
            f"{clip}patch_embedding_alpha.weight",
            torch.zeros_like(source[f"{clip}patch_embedding.weight"][:, :1]),
        ),
    }
    for kind in ("weight", "bias"):
        found[f"pre_layernorm.{kind}"] = source[f"pre_layrnorm.{kind}"]
        for block in range(blocks):
            layer = f"encoder.layers.{block}"
            found[f"{layer}.self_attn.qkv.{kind}"] = torch.cat(
                [source[f"{layer}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            )
            found[f"{layer}.self_attn.projection.{kind}"] = source[
                f"{layer}.self_attn.out_proj.{kind}"
            ]
            for name in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"):
                found[f"{layer}.{name}.{kind}"] = source[f"{layer}.{name}.{kind}"]
    return found
