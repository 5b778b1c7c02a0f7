"""Pictures and latents: the autoencoder, the canvas of an inpainting run, control pictures."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, SchedulerMixin, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from ..framing import as_image, resize
from .references import as_reference

HIDDEN = 0.5  # gray, what an inpainting UNet sees in place of the masked part
Autoencoder: TypeAlias = AutoencoderKL | AutoencoderTiny


@dataclass(frozen=True)
class Canvas:
    """A picture whose masked part is painted anew; the rest stays.

    Attributes:
        image: the picture in [0, 1].
        mask: 1 = paint anew.
        latents: of the picture, scaled as the UNet sees them.
        latent_mask: the mask at the latents' size.
        noise: what the picture is covered with.
        unet_input: mask and latents of what stays, for an inpainting UNet; None for a plain one.
    """

    image: Float[Tensor, "#batch 3 height width"]
    mask: Float[Tensor, "#batch 1 height width"]
    latents: Float[Tensor, "batch channels rows columns"]
    latent_mask: Float[Tensor, "#batch 1 rows columns"]
    noise: Float[Tensor, "batch channels rows columns"]
    unet_input: Float[Tensor, "batch extra rows columns"] | None = None

    def noisy(self, scheduler: SchedulerMixin, timestep: Tensor) -> Tensor:
        """The picture's latents with the noise of a timestep."""
        steps = timestep.reshape(1).expand(len(self.latents))
        if hasattr(scheduler, "add_noise"):
            return scheduler.add_noise(self.latents, self.noise, steps)
        return scheduler.scale_noise(self.latents, steps, self.noise)

    def keep(self, latents: Tensor, scheduler: SchedulerMixin, following: Tensor | None) -> Tensor:
        """The latents with what stays put back, as noisy as the following timestep wants it."""
        if self.unet_input is not None:
            return latents
        original = self.latents if following is None else self.noisy(scheduler, following)
        return torch.lerp(original.to(latents.dtype), latents, self.latent_mask)

    def compose(self, image: Tensor) -> Tensor:
        """The painted picture with every pixel outside the mask exactly as it was."""
        return torch.lerp(self.image, image, self.mask)


def read_canvas(picture: Any, mask: Any) -> tuple[Tensor, Tensor] | None:
    """The image to inpaint and its mask, 1 = paint anew; None without either.

    Args:
        picture: one picture; its transparency counts for nothing.
        mask: mask of the picture's size, or a box.
    """
    if picture is None and mask is None:
        return None
    if picture is None:
        raise ValueError("inpaint_mask is given without inpaint_image; expected both or neither.")
    if mask is None:
        raise ValueError(
            "inpaint_mask is None; expected a mask of inpaint_image's size, 1 = paint anew, or a "
            "box (x0, y0, x1, y1)."
        )
    image, alpha = as_reference(picture, mask)
    assert alpha is not None
    return image, alpha


def make_canvas(
    vae: Autoencoder,
    image: Float[Tensor, "1 3 height width"],
    mask: Float[Tensor, "1 1 height width"],
    size: tuple[int, int],
    noise: Float[Tensor, "batch channels rows columns"],
    unet: UNet2DConditionModel,
) -> Canvas:
    """The canvas of a run whose results have the given size and start from `noise`."""
    image = resize(image, size, "bicubic").to(noise.device, noise.dtype)
    mask = resize(mask, size).to(noise.device, noise.dtype)
    latents = encoded(vae, image)
    if latents.shape[1:] != noise.shape[1:]:
        raise ValueError(
            f"the VAE makes latents of shape {tuple(latents.shape[1:])} but the UNet takes "
            f"{tuple(noise.shape[1:])}; inpainting needs one scale. The pipeline's "
            f"scale_down_factor sets the UNet's."
        )
    latent_mask = resize(mask, (noise.shape[-2], noise.shape[-1]))
    unet_input = None
    if unet.config.in_channels > noise.shape[1]:
        hidden = torch.where(mask < 0.5, image, HIDDEN)
        unet_input = torch.cat([(latent_mask > 0.5).to(noise.dtype), encoded(vae, hidden)], dim=1)
        unet_input = unet_input.expand(len(noise), -1, -1, -1)
    latents = latents.expand(len(noise), -1, -1, -1)
    return Canvas(image, mask, latents, latent_mask, noise, unet_input)


def encoded(
    vae: Autoencoder, image: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch channels rows columns"]:
    """The latents of pictures in [0, 1] as the UNet sees them; the mode, without chance."""
    found = vae.encode((2 * image - 1).to(vae.dtype))
    latents = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
    return ((latents - _shift(vae)) * vae.config.scaling_factor).to(image.dtype)


def decoded(
    vae: Autoencoder, latents: Float[Tensor, "batch channels rows columns"]
) -> Float[Tensor, "batch 3 height width"]:
    """The pictures of latents, in [0, 1]."""
    latents = latents.to(vae.dtype) / vae.config.scaling_factor + _shift(vae)
    return (vae.decode(latents, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)


def _shift(vae: Autoencoder) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


def read_control(pictures: Any, size: tuple[int, int], batch: int) -> Tensor:
    """The control pictures, one for each prompt or one for all, at the size of the run."""
    several = pictures if isinstance(pictures, list | tuple) else [pictures]
    images = torch.cat([resize(as_image(picture), size, "bicubic") for picture in several])
    if len(images) not in (1, batch):
        raise ValueError(
            f"control_image has {len(images)} pictures for {batch} prompts; expected 1 or {batch}."
        )
    return images.expand(batch, -1, -1, -1)
