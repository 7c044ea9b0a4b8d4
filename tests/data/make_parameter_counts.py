"""Count the parameters of the reference classes of `transformers` for the models in configs.json.

Needs `transformers` and `torch` (for this script alone). The classes are built on torch's meta device: no memory, no
download. Tied weights count once. Prints rows of parameter_counts.csv: python make_parameter_counts.py [name ...]
"""

import json
import sys
from pathlib import Path


def count(config: dict) -> tuple[int, str]:
    """Parameters of the class that a config names, and that name."""
    import torch
    import transformers

    name = config["architectures"][0]
    reference = getattr(transformers, name)
    fields = {key: value for key, value in config.items() if key not in ("architectures", "model_type", "auto_map")}
    with torch.device("meta"):
        model = reference(reference.config_class(**fields))
    model.tie_weights()
    if config.get("tie_word_embeddings") is False:  # T5 classes tie all the same; v1.1 checkpoints hold both matrices
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return sum(weight.numel() for weight in model.parameters()), name


def main() -> None:
    import transformers

    configs = json.loads((Path(__file__).parent / "configs.json").read_text(encoding="utf-8"))
    for preset in sys.argv[1:] or sorted(configs):
        parameters, name = count(configs[preset])
        print(f"{preset},{parameters},transformers {transformers.__version__} {name}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
