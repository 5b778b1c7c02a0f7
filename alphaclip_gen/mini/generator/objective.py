"""What the generator is trained to do: to remove noise, told by a region and a prompt what to draw.

Two heads, dropped after the training, teach the Q-Former what its tokens are for. One names the
subject. The other draws it 32 pixels wide, token by token a cell of it, so that the U-Net finds
what belongs at a place in one token.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SchedulerMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ...subject import AlphaBlipDiffusionPipeline
from ...subject.canvas import encoded
from ...vision import pixel_values
from ..concepts import NAMES
from ..runs import autocast
from .lessons import THUMBNAIL, Lessons

LEAST_WEIGHT, MOST_WEIGHT = 1.0, 5.0
NOISINESS = 2.0
"""Timesteps are 1 minus a uniform number to that power, in terms of the last."""
NAME_WEIGHT, THUMBNAIL_WEIGHT = 0.01, 2.0


class Learner(nn.Module):
    """The parts of the pipeline that learn, shared with it, and the two heads.

    Args:
        pipe: the pipeline.
    """

    def __init__(self, pipe: AlphaBlipDiffusionPipeline):
        super().__init__()
        self.qformer, self.text_encoder, self.unet = pipe.qformer, pipe.text_encoder, pipe.unet
        self.frame = pipe.image_processor.frame
        queries, width = self.qformer.query_tokens.shape[1:]
        self.name_head = nn.Linear(width, len(NAMES))
        self.cells = math.isqrt(queries)
        if self.cells**2 != queries or THUMBNAIL % self.cells:
            raise ValueError(
                f"queries are {queries}; expected a square number whose root divides {THUMBNAIL}, "
                f"such as 16."
            )
        self.cell_head = nn.Linear(width, 4 * (THUMBNAIL // self.cells) ** 2)
        nn.init.zeros_(self.cell_head.weight)  # else it draws noise for hundreds of steps
        nn.init.zeros_(self.cell_head.bias)
        self.eval()  # nothing is dropped out; conditions are dropped as a whole, see `Noised`

    def draw_thumbnail(
        self, subject: Float[Tensor, "lessons queries width"]
    ) -> Float[Tensor, "lessons 4 32 32"]:
        """The subject alone, premultiplied: each token draws its cell, row by row."""
        cells = self.cell_head(subject).transpose(1, 2)
        return F.pixel_shuffle(
            cells.unflatten(2, (self.cells, self.cells)), THUMBNAIL // self.cells
        )

    @torch.no_grad()
    def fit_cells(self, tokenizer: PreTrainedTokenizerBase, lessons: Lessons) -> None:
        """Nothing; the cells' head is the best linear one of what the tokens hold now."""
        tokens = self.read_subject(tokenizer, lessons).float().flatten(0, 1)
        cells = F.pixel_unshuffle(lessons.thumbnail, THUMBNAIL // self.cells)
        mean, wanted = tokens.mean(0), cells.flatten(2).transpose(1, 2).flatten(0, 1)
        within = (tokens - mean).T @ (tokens - mean)
        within += 1e-3 * within.diagonal().mean() * torch.eye(len(within))
        weight = torch.linalg.solve(within, (tokens - mean).T @ (wanted - wanted.mean(0))).T
        self.cell_head.weight.copy_(weight)
        self.cell_head.bias.copy_(wanted.mean(0) - weight @ mean)

    def read_subject(
        self, tokenizer: PreTrainedTokenizerBase, lessons: Lessons
    ) -> Float[Tensor, "lessons queries width"]:
        """The subjects' tokens, as `AlphaBlipDiffusionPipeline.encode_subject` makes them."""
        words = tokenizer(lessons.sources, padding=True, return_tensors="pt")
        return self.qformer(self.look_at(lessons), words.input_ids, words.attention_mask)

    def look_at(self, lessons: Lessons) -> Float[Tensor, "lessons 4 size size"]:
        """What the tower is shown."""
        return pixel_values(*self.frame(lessons.image, lessons.alpha))

    def read_prompts(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: list[str],
        context: Float[Tensor, "prompts queries width"] | None = None,
    ) -> Float[Tensor, "prompts tokens width"]:
        """The prompts' tokens, as `AlphaBlipDiffusionPipeline.encode_prompt` makes them."""
        room = self.text_encoder.config.max_position_embeddings
        length = room - (0 if context is None else context.shape[1])
        words = tokenizer(
            prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return self.text_encoder(words.input_ids, context)


@dataclass(frozen=True)
class Noised:
    """Latents with noise, and what else chance decides in a step; each lesson's draws in turn.

    Attributes:
        latents: of the pictures asked for.
        noise: of deviation 1.
        timestep: of the scheduler.
        dropped: which are told nothing, for classifier-free guidance (arXiv 2207.12598).
    """

    latents: Float[Tensor, "draws channels rows columns"]
    noise: Float[Tensor, "draws channels rows columns"]
    timestep: Int[Tensor, " draws"]
    dropped: Bool[Tensor, " draws"]


@torch.no_grad()
def add_noise(
    autoencoder: AutoencoderKL,
    target: Float[Tensor, "lessons 3 height width"],
    timesteps: int,
    generator: torch.Generator,
    drop: float = 0.1,
    draws: int = 1,
) -> Noised:
    """The latents of pictures, `draws` times, their noise, and timesteps, most of them very noisy.

    Where a little of the picture can be made out, the U-Net learns to look there, and no longer at
    the prompt; so a fifth of the timesteps are the last 4 %, in which only the prompt tells what to
    draw. They are spread evenly over their distribution, which lowers the variance of the loss
    (Kingma et al. 2021, arXiv 2107.00630).
    """
    with autocast(target.device):
        latents = encoded(autoencoder, target).float().repeat_interleave(draws, dim=0)
    count = len(latents)
    spread = (torch.arange(count) + torch.rand(1, generator=generator)) / count
    order = torch.randperm(count, generator=generator)
    return Noised(
        latents,
        torch.randn(latents.shape, generator=generator),
        ((1 - (spread[order] % 1) ** NOISINESS) * (timesteps - 1)).round().long(),
        torch.rand(count, generator=generator) < drop,
    )


def reading_loss(
    learner: Learner, tokenizer: PreTrainedTokenizerBase, lessons: Lessons
) -> tuple[Float[Tensor, ""], dict[str, float], Float[Tensor, "lessons queries width"]]:
    """The heads' losses, figures to log, and the subjects' tokens.

    Of the drawing the steps to the right and down count too: squared errors of pixels alone leave
    it blurred (on held-out scenes the judge named 0.87 of such drawings, and 0.91 with the steps,
    300 training steps after 0.76).
    """
    with autocast(lessons.image.device):
        subject = learner.read_subject(tokenizer, lessons)
        named = learner.name_head(subject.mean(1))
        drawn = learner.draw_thumbnail(subject)
    name = F.cross_entropy(named.float(), lessons.concept)
    error = drawn.float() - lessons.thumbnail
    thumbnail = error.square().mean()
    edges = error.diff(dim=-1).square().mean() + error.diff(dim=-2).square().mean()
    figures = {
        "name": round(name.item(), 3),
        "thumbnail": round(thumbnail.item(), 4),
        "named": round((named.argmax(1) == lessons.concept).float().mean().item(), 3),
    }
    return NAME_WEIGHT * name + THUMBNAIL_WEIGHT * (thumbnail + edges / 2), figures, subject


def generator_loss(
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
    scheduler: SchedulerMixin,
    lessons: Lessons,
    noised: Noised,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The weighted error of the predicted velocity plus the heads' losses; and figures to log."""
    signal = scheduler.alphas_cumprod[noised.timestep].view(-1, 1, 1, 1)
    mixed = signal.sqrt() * noised.latents + (1 - signal).sqrt() * noised.noise
    reading, figures, subject = reading_loss(learner, tokenizer, lessons)
    with autocast(mixed.device):
        told = learner.read_prompts(tokenizer, lessons.prompts, subject)
        told = told.repeat_interleave(len(mixed) // len(told), dim=0)
        nothing = learner.read_prompts(tokenizer, [""])
        told = torch.where(noised.dropped.view(-1, 1, 1), nothing, told)
        predicted = learner.unet(mixed, noised.timestep, encoder_hidden_states=told).sample
    velocity = signal.sqrt() * noised.noise - (1 - signal).sqrt() * noised.latents
    error = (predicted.float() - velocity).square().mean((1, 2, 3))
    error = (error * loss_weight(signal.flatten())).mean()
    return error + reading, {"velocity": round(error.item(), 4), **figures}


def loss_weight(signal: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The weight of a velocity's squared error where the latents' variance has that share.

    In terms of the picture it is the signal-to-noise ratio, held between 1 and 5: at most 5 as in
    min-SNR (arXiv 2303.09556), at least 1 as in arXiv 2202.00512, appendix D, since at the
    noisiest timesteps, where nothing else says what to draw, the region is learned.
    """
    ratio = signal / (1 - signal)
    return ratio.clamp(LEAST_WEIGHT, MOST_WEIGHT) / (ratio + 1)
