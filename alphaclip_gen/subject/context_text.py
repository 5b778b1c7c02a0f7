"""CLIP's text encoder with a subject inside the sentence: BLIP-Diffusion's context encoder.

State-dict keys are those of diffusers' ContextCLIPTextModel. Attention is causal throughout, over
the subject's tokens too. Source: BLIP-Diffusion, arXiv 2305.14720, section 3.1.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig

from .layers import Block, Encoder, attend
from .loading import CompleteModel


class TextEmbeddings(nn.Module):
    """Words with the context put among them, then positions."""

    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor, context: Tensor | None, place: int) -> Tensor:
        tokens = self.token_embedding(input_ids)
        if context is not None:
            context = context.to(tokens.dtype)
            tokens = torch.cat([tokens[:, :place], context, tokens[:, place:]], dim=1)
        length, longest = tokens.shape[1], self.position_embedding.num_embeddings
        if length > longest:
            raise ValueError(
                f"input_ids and context have {length} tokens together; expected at most {longest}. "
                f"Tokenize with max_length={longest - length + input_ids.shape[1]}."
            )
        return tokens + self.position_embedding(torch.arange(length, device=tokens.device))


class TextAttention(nn.Module):
    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_dropout or 0.0
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        projected = self.q_proj(tokens), self.k_proj(tokens), self.v_proj(tokens)
        return self.out_proj(attend(*projected, self.heads, causal=True, dropout=dropout))


class TextTransformer(nn.Module):
    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        blocks = range(config.num_hidden_layers)
        self.encoder = Encoder([Block(config, TextAttention(config)) for _ in blocks])
        self.final_layer_norm = nn.LayerNorm(config.hidden_size)  # its eps is not the config's

    def forward(self, input_ids: Tensor, context: Tensor | None, place: int) -> Tensor:
        tokens = self.embeddings(input_ids, context, place)
        return self.final_layer_norm(self.encoder(tokens))


class ContextCLIPTextModel(CompleteModel):
    """Token embeddings of a prompt into which a subject has been put."""

    __module__ = "alphaclip_gen"
    config_class = CLIPTextConfig
    config: CLIPTextConfig
    base_model_prefix = "text_model"  # transformers 5 saves without this prefix: both load
    main_input_name = "input_ids"
    _no_split_modules = ["Block"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids"]  # noqa: RUF012

    def __init__(self, config: CLIPTextConfig):
        super().__init__(config)
        self.text_model = TextTransformer(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.embeddings.token_embedding

    def forward(
        self,
        input_ids: Int[Tensor, "batch words"],
        context: Float[Tensor, "batch queries channels"] | None = None,
        context_position: int = 2,
    ) -> Float[Tensor, "batch tokens channels"]:
        """The last hidden states, normalized; `tokens` is words plus queries.

        Args:
            input_ids: words of CLIP's tokenizer.
            context: subject tokens of the Q-Former, None for a plain prompt.
            context_position: how many words come before the context: start token and article.
        """
        return self.text_model(input_ids, context, context_position)
