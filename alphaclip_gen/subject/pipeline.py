"""BLIP-Diffusion with regions: generate, control or inpaint the subject that a region points at.

The loop is this project's own; the quirks of the published pipeline that its weights depend on are
kept, and tests/test_subject_parity.py compares both. Source: arXiv 2305.14720.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DiffusionPipeline,
    ImagePipelineOutput,
    SchedulerMixin,
    UNet2DConditionModel,
)
from diffusers.image_processor import VaeImageProcessor
from jaxtyping import Float
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from .canvas import Canvas, decoded, make_canvas, read_canvas, read_control
from .context_text import ContextCLIPTextModel
from .denoising import (
    Conditions,
    check_run,
    denoise,
    first_latents,
    plan,
    run_noise,
    run_size,
    step_options,
)
from .processor import AlphaBlipImageProcessor
from .prompts import fuse, load_subject_tokenizer, subject_prompt, subject_words
from .published import known_to_diffusers
from .qformer import AlphaBlip2QFormerModel
from .references import arrange, per_prompt

Generators = torch.Generator | list[torch.Generator] | None


class AlphaBlipDiffusionPipeline(DiffusionPipeline):
    """Pictures of the subject in a region of a reference, by BLIP-Diffusion.

    Example:
        pipe = AlphaBlipDiffusionPipeline.from_pretrained("Salesforce/blipdiffusion")
        pipe("on a beach", Image.open("scene.png"), "dog", "dog", alpha_mask=(40, 30, 200, 180))

    Args:
        qformer_tokenizer: reads the subject's name; None loads what the Q-Former's config names,
            or BERT's, on first use.
        ctx_begin_pos: how many tokens come before the subject: start token and article.
        mean, std: of the color, in place of the image processor's.
        prompt_reps: how often a prompt is repeated by default.
        scale_down_factor: from pixels to latents; None takes it from the UNet, as published.
    """

    __module__ = "alphaclip_gen"
    model_cpu_offload_seq = "qformer->text_encoder->unet->vae"
    _optional_components = ["controlnet", "qformer_tokenizer"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents", "prompt_embeds"]  # noqa: RUF012

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: ContextCLIPTextModel,
        vae: AutoencoderKL | AutoencoderTiny,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        qformer: AlphaBlip2QFormerModel,
        image_processor: AlphaBlipImageProcessor,
        controlnet: ControlNetModel | None = None,
        qformer_tokenizer: PreTrainedTokenizerBase | None = None,
        ctx_begin_pos: int = 2,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        prompt_reps: int = 20,
        scale_down_factor: int | None = None,
    ):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            qformer=qformer,
            image_processor=image_processor,
            controlnet=controlnet,
            qformer_tokenizer=qformer_tokenizer,
        )
        self.register_to_config(
            ctx_begin_pos=ctx_begin_pos,
            mean=mean,
            std=std,
            prompt_reps=prompt_reps,
            scale_down_factor=scale_down_factor,
        )
        self._interrupt = False

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, **options: Any
    ) -> "AlphaBlipDiffusionPipeline":
        """The pipeline of a folder or Hub id: a published one, or one saved by this class."""
        with known_to_diffusers():
            return super().from_pretrained(pretrained_model_name_or_path, **options)

    @classmethod
    def download(cls, pretrained_model_name: Any, **options: Any) -> Any:
        """The folder in the cache that a pipeline of the Hub was downloaded to."""
        with known_to_diffusers():
            return super().download(pretrained_model_name, **options)

    @property
    def interrupt(self) -> bool:
        """Whether to stop after this step; a callback may set it."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, stop: bool) -> None:
        self._interrupt = stop

    @property
    def latent_scale(self) -> int:
        """Pixels to a latent, along each side."""
        return self.config.scale_down_factor or 2 ** (len(self.unet.config.block_out_channels) - 1)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Any,
        source_subject_category: str | list,
        target_subject_category: str | list[str],
        *,
        alpha_mask: Any = None,
        geometry: str | None = None,
        reference_fusion: str = "average",
        negative_prompt: str | list[str] | None = "",
        prompt_strength: float = 1.0,
        prompt_reps: int | None = None,
        guidance_scale: float = 7.5,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        control_image: Any = None,
        controlnet_conditioning_scale: float = 1.0,
        inpaint_image: Any = None,
        inpaint_mask: Any = None,
        strength: float = 1.0,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] | list[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Pictures of the subject, one for each prompt (times `num_images_per_prompt`).

        Args:
            prompt: what the subject does or where it is; `{subject}` in it stands for the name,
                without it "a <name> " is put in front.
            image: the reference: a picture of any kind (PIL, path, numpy HWC, tensor CHW). The
                transparency of an RGBA picture is its region. A list is several references of a
                prompt given as a string, or one entry for each of a list of prompts.
            source_subject_category: name of what the region shows, "dog"; or a list like `image`.
            target_subject_category: name of what to generate; one for all prompts or one each.
            alpha_mask: the region: mask of the picture's size, or box (x0, y0, x1, y1); or a list
                like `image`. One picture with a list of regions is looked at in each.
            geometry: how a reference becomes a square: "squash", "center", "pad" or "region" (cut
                out around the region); if None as the image processor's settings say, "squash" for
                published models.
            reference_fusion: "average" for several views of one subject, "concatenate" for several
                subjects.
            negative_prompt: what to stay away from; encoded without a subject.
            prompt_strength, prompt_reps: the prompt is repeated `int(strength x reps)` times.
            guidance_scale: classifier-free guidance; at most 1 turns it off.
            height, width: of the result; by default the UNet's, or the inpainted picture's.
            eta: noise of DDIM.
            generator: one, or one for each result.
            latents: noise of standard deviation 1 to start from.
            control_image: what the ControlNet follows, one or one for each prompt.
            inpaint_image, inpaint_mask: the picture to put the subject into, and where (mask of its
                size, 1 = paint anew, or box). Every pixel outside stays as it is.
            strength: how much of the masked part's old content is noised over, above 0 to 1.
            output_type: "pil", "np", "pt" (batch, 3, height, width) in [0, 1], or "latent".
            return_dict: False returns a tuple.
            callback_on_step_end: called with (pipeline, index, timestep, tensors) after each step;
                tensors in the dictionary that it returns replace the pipeline's.
            callback_on_step_end_tensor_inputs: "latents", "prompt_embeds".
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        asked = read_canvas(inpaint_image, inpaint_mask)
        check_run(
            prompts,
            num_images_per_prompt,
            num_inference_steps,
            strength,
            asked is not None,
            output_type,
        )
        size = run_size(height, width, self._natural_size(asked), self.latent_scale)
        context = self.encode_subject(
            image,
            source_subject_category,
            alpha_mask,
            prompts=None if isinstance(prompt, str) else len(prompts),
            geometry=geometry,
            fusion=reference_fusion,
        )
        reps = self.config.prompt_reps if prompt_reps is None else prompt_reps
        subjects = per_prompt(target_subject_category, len(prompts), "target_subject_category")
        texts = [
            subject_prompt(text, subject, int(prompt_strength * reps))
            for text, subject in zip(prompts, subjects, strict=True)
        ]
        prompt_embeds = self.encode_prompt(texts, context)
        if guidance_scale > 1:
            negatives = per_prompt(negative_prompt or "", len(prompts), "negative_prompt")
            prompt_embeds = torch.cat([self.encode_prompt(negatives), prompt_embeds])
        control = self._control(control_image, size, len(prompts))
        shape = (
            len(prompts) * num_images_per_prompt,
            self.vae.config.latent_channels,
            *(side // self.latent_scale for side in size),
        )
        device = self._execution_device
        noise = run_noise(shape, generator, latents, device, self.unet.dtype)
        canvas = None if asked is None else make_canvas(self.vae, *asked, size, noise, self.unet)
        conditions = Conditions(
            prompt_embeds.repeat_interleave(num_images_per_prompt, dim=0),
            guidance_scale,
            canvas,
            None if control is None else control.repeat_interleave(num_images_per_prompt, dim=0),
            controlnet_conditioning_scale,
        )
        timesteps = plan(self.scheduler, num_inference_steps, strength, device)
        latents = denoise(
            self,
            first_latents(self.scheduler, noise, canvas, timesteps, strength),
            timesteps,
            conditions,
            step_options(self.scheduler, generator, eta),
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        images = self.decode(latents, canvas, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def encode_subject(
        self,
        image: Any,
        source_subject_category: str | list,
        alpha_mask: Any = None,
        *,
        prompts: int | None = None,
        geometry: str | None = None,
        fusion: str = "average",
    ) -> Float[Tensor, "rows tokens width"]:
        """The subject tokens of the references: one row for all prompts, or one for each.

        Args:
            prompts: how many prompts there are, None for one given as a string.
        """
        found = arrange(image, alpha_mask, source_subject_category, prompts)
        pixel_values = torch.cat(
            [
                self.image_processor(
                    picture,
                    mask,
                    image_mean=self.config.mean,
                    image_std=self.config.std,
                    geometry=geometry,
                ).to(self._execution_device, self.qformer.dtype)
                for picture, mask in found.pictures
            ]
        )
        pairs = list(dict.fromkeys(pair for row in found.rows for pair in row))
        words = self._subject_words([name for _, name in pairs])
        index = torch.tensor([picture for picture, _ in pairs], device=self._execution_device)
        queries = self.qformer(pixel_values, words.input_ids, words.attention_mask, index)
        return fuse([queries[[pairs.index(pair) for pair in row]] for row in found.rows], fusion)

    def encode_prompt(
        self,
        texts: list[str],
        context: Float[Tensor, "rows tokens width"] | None = None,
    ) -> Float[Tensor, "prompts tokens_and_words width"]:
        """The text embeddings that the UNet attends to, with the subject in them.

        Args:
            texts: whole prompts, see subject_prompt().
            context: subject tokens, one row for all or one for each; None for a plain prompt.
        """
        room = self.text_encoder.config.max_position_embeddings
        taken = 0 if context is None else context.shape[1]
        if room - taken <= self.config.ctx_begin_pos:
            raise ValueError(
                f"the references take {taken} of the prompt's {room} tokens, which leaves no room "
                f"for words. Pass fewer references, or reference_fusion='average'."
            )
        words = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=room - taken,
            return_tensors="pt",
        )
        if context is not None:
            context = context.expand(len(texts), -1, -1)
        return self.text_encoder(
            words.input_ids.to(self._execution_device), context, self.config.ctx_begin_pos
        )

    def decode(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        canvas: Canvas | None = None,
        output_type: str = "pil",
    ) -> Any:
        """The pictures of latents, outside an inpainting mask those of the canvas."""
        if output_type == "latent":
            return latents
        image = decoded(self.vae, latents)
        image = image if canvas is None else canvas.compose(image)
        if output_type == "pt":
            return image
        array = VaeImageProcessor.pt_to_numpy(image)
        return array if output_type == "np" else VaeImageProcessor.numpy_to_pil(array)

    def _natural_size(self, asked: tuple[Tensor, Tensor] | None) -> tuple[int, int]:
        """(height, width) that nobody has to ask for: the inpainted picture's, or the UNet's."""
        scale = self.latent_scale
        if asked is not None:
            height, width = (max(scale, side - side % scale) for side in asked[0].shape[-2:])
            return height, width
        side = self.unet.config.sample_size
        rows, columns = (side, side) if isinstance(side, int) else side
        return rows * scale, columns * scale

    def _subject_words(self, names: list[str]) -> BatchEncoding:
        if self.qformer_tokenizer is None:
            tokenizer = load_subject_tokenizer(getattr(self.qformer.config, "tokenizer", None))
            self.register_modules(qformer_tokenizer=tokenizer)
        known = self.qformer.config.qformer_config.vocab_size
        return subject_words(self.qformer_tokenizer, names, known).to(self._execution_device)

    def _control(self, pictures: Any, size: tuple[int, int], prompts: int) -> Tensor | None:
        if pictures is None:
            return None
        if self.controlnet is None:
            raise ValueError(
                "control_image is given but the pipeline has no controlnet; expected a "
                "ControlNetModel. pipe.register_modules(controlnet=...) adds one."
            )
        images = read_control(pictures, size, prompts)
        return images.to(self._execution_device, self.controlnet.dtype)
