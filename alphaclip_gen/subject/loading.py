"""Loading BLIP-Diffusion's parts: complete weights or an error, by names known to diffusers."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import diffusers
from transformers import PreTrainedModel

from ..vision import Complete


class CompleteModel(Complete, PreTrainedModel):
    """A pretrained model that refuses a file with keys that are not its own, too."""

    REFUSED = ("missing", "unexpected", "mismatched")
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True


@contextmanager
def names_in_diffusers(**libraries: SimpleNamespace) -> Iterator[None]:
    """While inside, `["library", "Class"]` of a model_index.json finds the classes given here."""
    present = vars(diffusers.pipelines)
    before = {name: present[name] for name in libraries if name in present}
    for name, classes in libraries.items():
        setattr(diffusers.pipelines, name, classes)
    try:
        yield
    finally:
        for name in libraries:
            if name in before:
                setattr(diffusers.pipelines, name, before[name])
            else:
                delattr(diffusers.pipelines, name)
