"""The words around a subject: how BLIP-Diffusion writes its prompts, and reads a subject's name."""

from jaxtyping import Float
from torch import Tensor, cat, stack
from transformers import BatchEncoding, BertTokenizer, PreTrainedTokenizerBase

PLACEHOLDER = "{subject}"
BERT = "bert-base-uncased"  # what the published code loads when the folder names no other
FUSIONS = ("average", "concatenate")


def subject_prompt(prompt: str, subject: str, repetitions: int) -> str:
    """The prompt about the subject, repeated to make it stronger.

    `{subject}` in the prompt stands for the subject's name; without it the prompt is what the
    published code writes, "a <subject> <prompt>".
    """
    if repetitions < 1:
        raise ValueError(
            f"prompt_strength x prompt_reps is {repetitions} repetitions; expected at least 1."
        )
    if PLACEHOLDER in prompt:
        sentence = prompt.strip().replace(PLACEHOLDER, subject)
    else:
        sentence = f"a {subject} {prompt.strip()}"
    return ", ".join([sentence] * repetitions)


def fuse(
    subjects: list[Float[Tensor, "_ queries width"]], fusion: str
) -> Float[Tensor, "prompts tokens width"]:
    """One context for each prompt, from the query tokens of its references.

    Args:
        subjects: query tokens, one tensor a prompt.
        fusion: "average" for several views of one subject, "concatenate" for several subjects
            side by side.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"reference_fusion is {fusion!r}; expected one of {FUSIONS}.")
    if fusion == "average":
        return stack([queries.mean(0) for queries in subjects])
    counts = sorted({len(queries) for queries in subjects})
    if len(counts) > 1:
        raise ValueError(
            f"the prompts have {counts} references; 'concatenate' expects as many for each. "
            f"reference_fusion='average' takes any number."
        )
    return cat([queries.flatten(0, 1)[None] for queries in subjects])


def subject_words(
    tokenizer: PreTrainedTokenizerBase, names: list[str], known: int
) -> BatchEncoding:
    """The subjects' names as the Q-Former, which knows so many words, reads them."""
    words = tokenizer(names, return_tensors="pt", padding=True)
    largest = words.input_ids.max().item()
    if largest >= known:
        raise ValueError(
            f"qformer_tokenizer makes word {largest}; expected at most {known - 1}, the Q-Former's "
            f"last. Pass the tokenizer that it was trained with."
        )
    return words


def load_subject_tokenizer(name: str | None) -> PreTrainedTokenizerBase:
    """The Q-Former's BERT tokenizer, with the extra token of the published one."""
    name = name or BERT
    try:
        tokenizer = BertTokenizer.from_pretrained(name, truncation_side="right")
    except OSError as error:
        raise ValueError(
            f"the Q-Former's tokenizer {name!r} cannot be loaded ({error}). Pass "
            f"qformer_tokenizer=BertTokenizer.from_pretrained(folder) to the pipeline."
        ) from error
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer
