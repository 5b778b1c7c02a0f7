"""Where half precision pays."""

import torch


def has_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether the device computes in bfloat16 rather than emulating it.

    A CPU without AVX-512 or SVE emulates it: a hundred times slower than float32 (AMD EPYC with
    AVX2).
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind != "cpu" or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "DEFAULT")
