"""Arguments about kernels: their sizes, and the libraries that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim import arguments
from hwsim.arguments import LARGEST
from hwsim.errors import InputFileError, UsageError, did_you_mean, shorten
from hwsim.specs.hardware import Accelerator
from hwsim.specs.job import Framework
from hwsim.specs.reading import Document

Column = npt.NDArray[np.float64]
WHOLE_LIBRARIES = ("torch", "vllm", "sglang", "trtllm")
"""Kernel libraries with multiplies and attention of their own."""
LIBRARIES = (*WHOLE_LIBRARIES, "flashinfer", "triton", "fa1", "fa2", "fa3", "torch_flow_flashinfer",
             "vllm_flash_attn_fa2", "vllm_flashinfer_fidecode", "vllm_triton_attn")  # fmt: skip
"""Libraries that were measured apart somewhere, the last ones for attention alone; a profile may name more."""
ALIASES: Mapping[str, tuple[str, ...]] = {
    "default": (), "framework": (), "tensorrt_llm": ("trtllm",), "tensorrt-llm": ("trtllm",), "sarathi": ("torch",),
    "sarathi/torch": ("torch",), "pytorch": ("torch",), "cublas": ("torch",),
}  # fmt: skip
"""Other names of the same libraries."""
SIZES: Mapping[str, Mapping[str, float | None]] = {
    "gemm": {"m": None, "n": None, "k": None, "batch": 1.0},
    "attention": {"q_len": None, "kv_len": None, "heads": None, "kv_heads": None, "head_dim": None, "batch": 1.0,
                  "causal": 1.0, "backward": 0.0, "window": LARGEST},
    "stream": {"bytes": None},
}  # fmt: skip
"""Kernel to its sizes and their defaults; none: it must be given."""
RANGES = {
    "causal": (0.0, 1.0), "backward": (0.0, 1.0), "bytes": (0.0, LARGEST), "head_dim": (1.0, 1024.0),
}  # fmt: skip
"""Sizes that do not range from 1 to `LARGEST`."""
FRACTIONS = ("causal", "backward", "bytes", "kv_len")
"""Sizes that need not be whole numbers: flags, bytes, and keys, which may be a mean over sequences."""
RULES: Mapping[str, Callable[[Mapping[str, Column]], npt.NDArray[np.bool_]]] = {
    "heads {heads:g} must be a multiple of kv_heads {kv_heads:g}": lambda size: size["heads"] % size["kv_heads"] > 0,
    "q_len {q_len:g} is more than kv_len {kv_len:g}: with a causal mask the keys hold those of the queries "
    "(causal=False: they do not)": lambda size: (size["causal"] > 0) & (size["q_len"] > size["kv_len"]),
}
"""What attention must not be."""


def library(name: Any, accelerator: Accelerator, operator: str) -> tuple[str, ...]:
    """A kernel library in the profiles' words; the device's own curves stand in for one not measured on it."""
    word = arguments.choice("library", name, dict.fromkeys((*_known(accelerator), *ALIASES)))
    own = accelerator.kernels.libraries.get(word)
    multiplies = word in (*WHOLE_LIBRARIES, *ALIASES) or (own is not None and own.gemm is not None)
    if operator != "attention" and not multiplies:
        msg = f"library: {word} runs attention alone, no {operator} (others: {', '.join(WHOLE_LIBRARIES)})"
        raise UsageError(msg)
    return ALIASES.get(word, (word,))


def check_framework(framework: Framework, accelerator: Accelerator, settings: Document | None) -> None:
    """Refuse kernel libraries that were measured nowhere and that the device's profile does not name."""
    known = _known(accelerator)
    for name in framework.libraries:
        if name not in known:
            place = settings.where(("libraries",)) if settings else framework.name
            hint = f"{did_you_mean(name, known)} (known: {', '.join(known)})"
            raise InputFileError([f"{place}: unknown kernel library {shorten(name)}{hint}"])


def _known(accelerator: Accelerator) -> tuple[str, ...]:
    """Kernel libraries measured apart somewhere, and those that the device's own profile names."""
    return tuple(dict.fromkeys((*LIBRARIES, *map(str, accelerator.kernels.libraries))))


def sizes(operator: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a kernel, complete, of one length and possible together."""
    known = SIZES[operator]
    arguments.named(given, known)
    missing = [name for name, default in known.items() if default is None and given.get(name) is None]
    if missing:
        msg = f"{operator} needs {', '.join(missing)}"
        raise UsageError(msg)
    found = {name: _size(name, default if given.get(name) is None else given[name]) for name, default in known.items()}
    arguments.same_length(found)
    if operator != "attention":
        return found
    if found["backward"].ndim:
        msg = "backward: must be true or false, not an array"
        raise UsageError(msg)
    _check_attention(found)
    return found | {"backward": bool(found["backward"])}


def _size(name: str, value: Any) -> Column:
    """One size of a kernel."""
    read = arguments.numbers if name in FRACTIONS else arguments.whole_numbers
    return read(name, value, *RANGES.get(name, ()))


def _check_attention(found: Mapping[str, Column]) -> None:
    """Refuse sizes that no attention has together, with the numbers of the first such row."""
    wide = dict(zip(found, np.broadcast_arrays(*found.values()), strict=True))
    for message, broken in RULES.items():
        rows = np.flatnonzero(broken(wide))
        if len(rows):
            msg = "attention: " + message.format(**{name: column.flat[rows[0]] for name, column in wide.items()})
            raise UsageError(msg)
