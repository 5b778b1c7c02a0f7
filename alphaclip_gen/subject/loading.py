"""Loading BLIP-Diffusion's parts: complete weights or an error, by names known to diffusers."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import diffusers
from transformers import PreTrainedModel


class CompleteModel(PreTrainedModel):
    """A pretrained model whose `from_pretrained` refuses weights with missing or foreign keys."""

    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *arguments: Any, **options: Any
    ) -> Any:
        """The model of a folder or Hub id, every parameter of it read from the file.

        Published weights know no alpha channel: its convolution then stays zero, which leaves the
        model as it was published.

        Raises:
            ValueError: the file lacks parameters, or has others or other sizes.
        """
        wants_info = options.pop("output_loading_info", False)
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *arguments, **options)
        model, info = loaded
        place = f"{pretrained_model_name_or_path}/{options.get('subfolder', '')}".rstrip("/")
        info["mismatched_keys"] = [
            f"{key} {tuple(got)} instead of {tuple(wanted)}"
            for key, got, wanted in info["mismatched_keys"]
        ]
        for kind in ("missing", "unexpected", "mismatched"):
            if keys := sorted(info[f"{kind}_keys"]):
                raise ValueError(
                    f"the weights in {place!r} have {len(keys)} {kind} keys for {cls.__name__}: "
                    f"{', '.join(keys[:5])}{', ...' * (len(keys) > 5)}; expected exactly its own. "
                    f"Check that folder and class belong together."
                )
        return (model, info) if wants_info else model


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
