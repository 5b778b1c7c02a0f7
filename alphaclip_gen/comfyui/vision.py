"""Our towers as ComfyUI's CLIP_VISION, so that every node that takes one takes them.

Nodes use a CLIP_VISION in two ways: by `encode_image`, or by moving `.patcher` and calling
`.model(pixel_values=..., intermediate_output=...)`, as IPAdapter_plus does. Both are kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import make_model, make_processor, make_tower
from ..encoder import RegionEncoder
from ..recognition import Checkpoint
from ..sources import read_checkpoint
from ..vision import AlphaCLIPModel, AlphaCLIPVisionModel, AlphaCLIPVisionModelWithProjection
from . import host
from .vision_files import read_file, tokenizer_of

MINI = "mini"
OWN_TEXTS = "its own"

Model = AlphaCLIPModel | AlphaCLIPVisionModel | AlphaCLIPVisionModelWithProjection


class CoreTower(nn.Module):
    """One of our towers that answers as the core's own does, in single precision.

    Args:
        clip: the tower, or the whole model.
    """

    def __init__(self, clip: Model):
        super().__init__()
        self.clip = clip

    @property
    def vision_model(self) -> Any:
        """The tower without projection, under the core's name."""
        return getattr(self.clip, "vision_model", self.clip)

    @property
    def visual_projection(self) -> Any:
        """The projection into the space shared with texts, under the core's name."""
        return getattr(self.clip, "visual_projection", nn.Identity())

    @property
    def knows_alpha(self) -> bool:
        """Whether the tower was trained with alpha: a plain CLIP has alpha weights of zero."""
        weight = self.vision_model.embeddings.patch_embedding_alpha.weight
        return bool(weight.any())

    def forward(
        self,
        pixel_values: Tensor,
        attention_mask: None = None,
        intermediate_output: int | str | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, None]:
        """Last tokens before the last norm, tokens of a layer (or of "all"), embedding, None.

        Args:
            pixel_values: normalized color, or four channels, see `alphaclip_gen.vision`.
            attention_mask: the core's, which it does not use either.
            intermediate_output: number of a layer; negative counts from the last one's end.
        """
        output = self.vision_model(pixel_values, output_hidden_states=True)
        layers = output.hidden_states[1:]
        between: Tensor | None = None
        if intermediate_output == "all":
            between = torch.stack(layers, dim=1).float()
        elif intermediate_output is not None:
            between = layers[intermediate_output].float()
        embedding = self.visual_projection(output.pooler_output)
        return output.last_hidden_state.float(), between, embedding.float(), None


class AlphaVision:
    """A CLIP_VISION of one of our towers.

    Attributes beside the core's: `encoder`, for nodes that compare regions with texts; None where
    the checkpoint has no text tower.
    """

    model_type = "clip_vision_model"
    return_all_hidden_states = False

    def __init__(
        self,
        model: CoreTower,
        mean: Sequence[float],
        std: Sequence[float],
        encoder: RegionEncoder | None = None,
    ):
        config = model.vision_model.config
        self.model = model
        self.patcher = host.patcher_of(model)
        self.load_device, _ = host.vision_devices()
        self.dtype = next(model.parameters()).dtype
        self.image_size = config.image_size
        self.image_mean, self.image_std = list(mean), list(std)
        self.config = {**config.to_dict(), "model_type": self.model_type}
        self.encoder = encoder

    def encode_image(self, image: Tensor, crop: bool = True) -> Any:
        """The CLIP_VISION_OUTPUT of an IMAGE, cut to its middle square or squashed to one."""
        host.load(self.patcher)
        pixel_values = host.preprocessed(
            image[..., :3].to(self.load_device), self.image_size, self.image_mean, self.image_std,
            crop,
        )  # fmt: skip
        return output_of(self, pixel_values.float())

    def get_sd(self) -> dict[str, Tensor]:
        """The weights, as the core's class gives them."""
        return self.model.state_dict()


def output_of(vision: Any, pixel_values: Tensor) -> Any:
    """The CLIP_VISION_OUTPUT that the vision's model makes of pixel values."""
    everything = getattr(vision, "return_all_hidden_states", False)
    last, between, embedding, projected = _four(
        vision.model(pixel_values=pixel_values, intermediate_output="all" if everything else -2)
    )
    between = host.to_host(between)
    values = {"all_hidden_states": between} if everything else {}
    return host.vision_output(
        last_hidden_state=host.to_host(last),
        image_embeds=host.to_host(embedding),
        penultimate_hidden_states=between[:, -2] if everything else between,
        image_sizes=[pixel_values.shape[1:]] * len(pixel_values),
        mm_projected=projected,
        **values,
    )


def _four(found: tuple) -> tuple[Tensor, Tensor, Tensor, Any]:
    """What a core's tower returns; old cores return three values."""
    last, between, embedding, *more = found
    return last, between, embedding, more[0] if more else None


def load_vision(name: str, texts: str = OWN_TEXTS) -> AlphaVision:
    """The CLIP_VISION of "mini" or of a file in models/clip_vision.

    Args:
        name: the file: a published Alpha-CLIP, or a plain CLIP of any layout.
        texts: the file of the whole CLIP that it was tuned from, for nodes that take texts.
    """
    with torch.inference_mode(False), torch.no_grad():  # weights that gradients can pass
        checkpoint = read_checkpoint(MINI) if name == MINI else _read(name, "model")
        words = checkpoint if texts == OWN_TEXTS else _read(texts, "texts")
        dtype = host.vision_dtype(host.vision_devices()[0])
        look = make_processor(checkpoint)
        mean, std = look.image_mean, look.image_std
        if words.text is None or not checkpoint.has_projection:
            if texts != OWN_TEXTS:
                raise ValueError(_no_texts(name, texts, words.text is None))
            return AlphaVision(CoreTower(make_tower(checkpoint, dtype=dtype)), mean, std)
        with _errors_of("texts"):
            model = make_model(checkpoint, None if words is checkpoint else words, dtype)
        encoder = RegionEncoder(model, tokenizer_of(words), look)
        return AlphaVision(CoreTower(model), mean, std, encoder)


def _read(name: str, input_name: str) -> Checkpoint:
    """The checkpoint of a file in models/clip_vision."""
    with _errors_of(input_name):
        return read_file(host.vision_path(name, input_name))


@contextmanager
def _errors_of(input_name: str) -> Iterator[None]:
    """While this holds, what the library refuses is said of the node's input."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{input_name}: {error}") from error


def _no_texts(name: str, texts: str, missing: bool) -> str:
    if missing:
        return f"texts is {texts!r}, which has no text tower; choose the file of a whole CLIP."
    return (
        f"texts is {texts!r}, but model {name!r} has no projection into the space that it shares "
        f"with texts; choose {OWN_TEXTS!r}, or a model with a projection."
    )


def encoder_of(vision: Any, input_name: str = "clip_vision") -> RegionEncoder:
    """The encoder of a CLIP_VISION that can read texts, on its device.

    Args:
        vision: the CLIP_VISION.
        input_name: the node's input that gave it.

    Raises:
        ValueError: it has no text tower.
    """
    encoder = getattr(getattr(vision, "unfocused", vision), "encoder", None)
    if encoder is None:
        raise ValueError(
            f"{input_name} has no text tower, which texts need. Take it from Load Alpha-CLIP "
            f"Vision: 'mini', a whole CLIP, or an Alpha-CLIP with the CLIP that it was tuned from "
            f"under `texts`."
        )
    host.load(vision.patcher)
    return encoder
