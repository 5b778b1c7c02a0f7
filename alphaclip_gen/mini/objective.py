"""What mini is trained to do: tell regions apart by captions, gently and under attack."""

import random
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..vision import AlphaCLIPModel, pixel_values
from .captions import COLORS, SHAPES, say
from .concepts import NAMES, say_all
from .examples import Examples, shown
from .runs import autocast


class Learner(torch.nn.Module):
    """The model, and a linear head that names concepts while it learns; only the model is kept."""

    def __init__(self, model: AlphaCLIPModel):
        super().__init__()
        self.model = model
        self.head = torch.nn.Linear(model.visual_projection.in_features, len(NAMES))


def contrast(
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    rng: random.Random,
) -> tuple[Float[Tensor, ""], float]:
    """Cross-entropy of regions against all captions, solids alone and colors alone; and of scenes.

    Returns the loss and the share of single regions whose likeliest caption is right.
    """
    captions = say_all(rng)
    wordings = [*captions, *(say(rng, shape=shape) for shape in SHAPES)]
    wordings += [say(rng, color=color) for color in COLORS]
    model = learner.model
    text = embed_texts(model, tokenizer, [*wordings, *examples.scene_captions])
    picture, tokens = embed_pictures(model, examples)
    logits = model.logit_scale.exp() * picture @ text.T

    single, pairs = len(examples.captions), len(captions)
    full, shape, color, scene = logits.tensor_split(
        [pairs, pairs + len(SHAPES), len(wordings)], dim=1
    )
    loss = graded_loss(full[:single], examples.captions)
    loss = loss + graded_loss(shape[:single], examples.shapes)
    loss = loss + 0.3 * graded_loss(color[:single], examples.colors)
    loss = loss + graded_loss(learner.head(tokens[:single, 0]), examples.concepts)
    loss = loss + graded_loss(learner.head(tokens[:, 1:]), examples.cover)
    if examples.scene_captions:
        candidates = torch.cat([scene[single:], full[single:]], dim=1)
        share = len(candidates) / len(logits)
        loss = loss + 2 * share * F.cross_entropy(candidates, torch.arange(len(candidates)))
    right = full[:single].argmax(1) == examples.captions.argmax(1)
    return loss, right.float().mean().item()


def graded_loss(
    logits: Float[Tensor, "*batch classes"], target: Float[Tensor, "*batch classes"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy against graded targets, each row weighted by its sum."""
    return -(target * logits.log_softmax(-1)).sum() / target.sum().clamp(min=1)


def perturb(
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    rng: random.Random,
    radius: float,
    generator: torch.Generator,
) -> Float[Tensor, "examples 3 height width"]:
    """The pictures moved one gradient step toward a wrong reading, at most `radius` far."""
    noise = torch.randn(examples.image.shape, generator=generator)
    start = examples.image + _unit(noise) * 0.3 * radius
    start.requires_grad_(True)
    loss, _ = contrast(learner, tokenizer, replace(examples, image=start), rng)
    (gradient,) = torch.autograd.grad(loss, start)
    reach = radius * torch.rand(len(start), 1, 1, 1, generator=generator)
    return (examples.image + _unit(gradient) * reach).clamp(0, 1).detach()


def _unit(tensor: Tensor) -> Tensor:
    return F.normalize(tensor.flatten(1), dim=1).view_as(tensor)


def embed_pictures(model: AlphaCLIPModel, examples: Examples) -> tuple[Tensor, Tensor]:
    """Unit embeddings of the examples' regions, and normalized tokens; bfloat16."""
    vision = model.vision_model
    with autocast(examples.image.device):
        tokens = vision.embeddings(pixel_values(examples.image, examples.alpha))
        if examples.patches is not None:
            tokens = torch.cat([tokens[:, :1], shown(tokens[:, 1:], examples.patches)], dim=1)
        output = vision.encoder(inputs_embeds=vision.pre_layrnorm(tokens))
        tokens = vision.post_layernorm(output.last_hidden_state)
        embedding = model.visual_projection(tokens[:, 0])
    return F.normalize(embedding.float(), dim=-1), tokens.float()


def embed_texts(
    model: AlphaCLIPModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> Tensor:
    """Unit embeddings of captions."""
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with autocast(model.device):
        output = model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask)
    return F.normalize(output.pooler_output.float(), dim=-1)
