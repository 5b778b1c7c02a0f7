"""Alpha-CLIP as transformers-native classes: CLIP's vision tower with a fourth input channel.

`pixel_values` has three channels (attend everywhere) or four. The fourth is stored as `alpha - 1`,
so zeros mean "attend everywhere": pipelines that build an unconditional picture by `zeros_like`
keep their meaning. Source: Alpha-CLIP, arXiv 2312.03818, and its published code.
"""

from typing import Any, ClassVar, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import PrefixChange
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from .alpha import ROUNDING, check_alpha

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
ALPHA_MEAN, ALPHA_STD = 0.5, 0.26
_PUBLIC_HOME = __name__.rpartition(".")[0]  # what saved pipelines name: the package


def pixel_values(
    image: Float[Tensor, "batch 3 height width"],
    alpha: Float[Tensor, "batch 1 height width"] | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """The tower's input: CLIP-normalized color and, when a region is given, `alpha - 1`.

    Args:
        image: pixels in [0, 1], already of the tower's size (see `preprocess`).
        alpha: alpha map of the same height and width; None means attend everywhere.
    """
    mean = image.new_tensor(IMAGE_MEAN).view(3, 1, 1)
    std = image.new_tensor(IMAGE_STD).view(3, 1, 1)
    color = (image - mean) / std
    if alpha is None:
        return color
    alpha = check_alpha(alpha, image).expand(len(image), -1, -1, -1)
    return torch.cat([color, (alpha - 1).to(color.dtype)], dim=1)


def color_and_stored(pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
    """The three color channels, and the stored alpha, `alpha - 1`; None if it attends everywhere.

    That is without a fourth channel, or with one of zeros that asks for no gradient.

    Raises:
        ValueError: another number of channels, or a fourth that is no stored alpha. RGBA in [0, 1],
            which pipelines hand on as it is where a tensor comes in, would not mean its region.
    """
    channels = pixel_values.shape[1]
    if channels not in (3, 4):
        raise ValueError(
            f"pixel_values has {channels} channels; expected 3 (attend everywhere) or 4 "
            "(color and alpha - 1). pixel_values(image, alpha) builds it."
        )
    if channels == 3:
        return pixel_values, None
    color, stored = pixel_values[:, :3], pixel_values[:, 3:]
    if not (stored.is_meta or torch.compiler.is_compiling()):
        low, high = (bound.item() for bound in stored.detach().aminmax())
        if not -1 - ROUNDING <= low <= high <= ROUNDING:  # NaN is not either
            raise ValueError(
                f"pixel_values has {low:.4g} to {high:.4g} in its fourth channel; expected "
                "alpha - 1, which is -1 to 0. pixel_values(image, alpha) builds it; a pipeline "
                "takes PIL pictures with transparency."
            )
        if low == high == 0 and not stored.requires_grad:
            return color, None
    return color, stored


class AlphaConvolution(nn.Conv2d):
    """The patch embedding of the alpha channel: no bias, zero until trained."""

    def forward(self, stored_alpha: Tensor | None) -> Tensor:
        """The patch features of a map stored as `alpha - 1`, normalized as in training.

        Args:
            stored_alpha: None is one everywhere: all patches are alike and need no convolution.

        Returns:
            (batch, width, rows, columns); (1, width, 1, 1) of None.
        """
        if stored_alpha is None:
            features = self.weight.sum((1, 2, 3)) * ((1 - ALPHA_MEAN) / ALPHA_STD)
            return features.view(1, -1, 1, 1)
        stored_alpha = stored_alpha.to(self.weight.dtype)
        return super().forward((stored_alpha + (1 - ALPHA_MEAN)) / ALPHA_STD)


class AlphaCLIPVisionEmbeddings(CLIPVisionEmbeddings):
    """CLIP's patch, class and position embeddings plus the alpha channel's patch embedding."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        height, width = self.patch_embedding.kernel_size
        self.patch_embedding_alpha = AlphaConvolution(
            1, self.embed_dim, (height, width), stride=(height, width), bias=False
        )

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """(batch, 1 + patches, width) tokens of (batch, 3 or 4, height, width) pixel values."""
        color, stored = color_and_stored(pixel_values)
        tokens = super().forward(color, interpolate_pos_encoding)
        patches = self.patch_embedding_alpha(stored).flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, :1], tokens[:, 1:] + patches], dim=1)


@no_type_check  # transformers makes it a dataclass that takes more than its fields
class AlphaCLIPVisionConfig(CLIPVisionConfig):
    """CLIP's vision configuration under Alpha-CLIP's name."""

    __module__ = _PUBLIC_HOME

    model_type = "alpha_clip_vision_model"


@no_type_check
class AlphaCLIPConfig(CLIPConfig):
    """CLIP's configuration with an Alpha-CLIP vision tower."""

    __module__ = _PUBLIC_HOME

    model_type = "alpha_clip"
    sub_configs_defaults: ClassVar = {
        "vision_config": AlphaCLIPVisionConfig,  # type: ignore[dict-item]
        "text_config": CLIPTextConfig,  # type: ignore[dict-item]
    }
    sub_configs: ClassVar = sub_configs_defaults


class Complete:
    """A model whose `from_pretrained` reads every weight from the file, where transformers draws.

    Alpha weights may be missing: zero then, they leave a plain CLIP as it is.
    """

    REFUSED: ClassVar[tuple[str, ...]] = ("missing", "mismatched")
    """Kinds of keys that a file must not have, in transformers' words."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *arguments: Any, **options: Any
    ) -> Any:
        """The model of a folder or Hub id, as transformers' own.

        Raises:
            ValueError: the file lacks weights, or has some of other sizes.
        """
        wants_info = options.pop("output_loading_info", False)
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        own: Any = super()
        model, info = own.from_pretrained(pretrained_model_name_or_path, *arguments, **options)
        found = {
            "missing": [key for key in info["missing_keys"] if "patch_embedding_alpha" not in key],
            "unexpected": info["unexpected_keys"],
            "mismatched": [
                f"{key} {tuple(got)} instead of {tuple(wanted)}"
                for key, got, wanted in info["mismatched_keys"]
            ],
        }
        place = f"{pretrained_model_name_or_path}/{options.get('subfolder', '')}".rstrip("/")
        for kind in cls.REFUSED:
            if keys := sorted(found[kind]):
                raise ValueError(
                    f"the weights in {place!r} have {len(keys)} {kind} keys for {cls.__name__}: "
                    f"{', '.join(keys[:5])}{', ...' * (len(keys) > 5)}; expected its own. "
                    f"Check that folder and class belong together."
                )
        return (model, info) if wants_info else model


class AlphaCLIPVisionModel(Complete, CLIPVisionModel):
    """CLIP's vision transformer with a region input; fresh alpha weights leave it unchanged."""

    __module__ = _PUBLIC_HOME

    config_class = AlphaCLIPVisionConfig
    config: AlphaCLIPVisionConfig

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        self.embeddings = AlphaCLIPVisionEmbeddings(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, AlphaConvolution):
            nn.init.zeros_(module.weight)
        else:
            super()._init_weights(module)


class AlphaCLIPVisionModelWithProjection(Complete, CLIPVisionModelWithProjection):
    """The tower with its projection into the space shared with text: diffusers' image encoder."""

    __module__ = _PUBLIC_HOME

    config_class = AlphaCLIPVisionConfig
    config: AlphaCLIPVisionConfig

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        self.vision_model = AlphaCLIPVisionModel._from_config(config)
        self.post_init()


class AlphaCLIPModel(Complete, CLIPModel):
    """Alpha-CLIP with its text tower: `get_image_features` takes three or four channels."""

    __module__ = _PUBLIC_HOME

    config_class = AlphaCLIPConfig
    config: AlphaCLIPConfig

    def __init__(self, config: CLIPConfig):
        super().__init__(config)
        self.vision_model = AlphaCLIPVisionModel._from_config(config.vision_config)
        self.post_init()


# Both vision classes share a configuration: a folder of the one with projection opens as either.
register_checkpoint_conversion_mapping(
    "AlphaCLIPVisionModel", [PrefixChange(prefix_to_remove="vision_model")], overwrite=True
)
AutoConfig.register("alpha_clip_vision_model", AlphaCLIPVisionConfig, exist_ok=True)
AutoConfig.register("alpha_clip", AlphaCLIPConfig, exist_ok=True)
AutoModel.register(AlphaCLIPVisionConfig, AlphaCLIPVisionModel, exist_ok=True)
AutoModel.register(AlphaCLIPConfig, AlphaCLIPModel, exist_ok=True)


def heeds_alpha(tower: Any) -> bool:
    """Whether a tower, or a whole model, gives another result for a region.

    A plain CLIP that was given alpha weights of zero does not.
    """
    embeddings = getattr(tower, "vision_model", tower).embeddings
    alpha = getattr(embeddings, "patch_embedding_alpha", None)
    return alpha is None or bool(alpha.weight.any())
