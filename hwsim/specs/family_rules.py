"""What no table can say of a family of Hugging Face models: how keys of its ``config.json`` hang together."""

from __future__ import annotations

from hwsim.specs.config_reader import DERIVED, Fields, Reader

FULL = "full_attention"
_SLIDING = (FULL, "sliding_attention")
_CHUNKED = (FULL, "chunked_attention")


def _use_window(reader: Reader, fields: Fields, key: str, windowed: int) -> None:
    """Give `windowed` layers the window under a key."""
    if not windowed:
        return
    fields["window"] = reader.count("window", key)
    if windowed < fields.get("layers", 0):
        fields["window_layers"] = windowed


def alternate(reader: Reader, fields: Fields, period: int) -> None:
    """Sliding windows as layer_types has them, or in all but every `period`-th layer."""
    layers = fields.get("layers", 0)
    kinds = reader.kinds("layer_types", layers, _SLIDING)
    full = kinds.count(FULL) if kinds is not None else layers // period
    _use_window(reader, fields, "sliding_window", layers - full)


def _experts_at(fields: Fields, chosen: list[int]) -> None:
    """Experts in the chosen layers: all after the first few, or spread among the others."""
    layers = fields.get("layers", 0)
    if chosen and chosen == list(range(chosen[0], layers)):
        fields["dense_layers"] = chosen[0]
    elif chosen:
        fields["expert_layers"] = len(chosen)


def mistral(reader: Reader, fields: Fields) -> None:
    """The window must be given, null for none."""
    if "sliding_window" not in reader.config:
        reader.problem("sliding_window", "missing (a number of tokens, or null for full attention)")
    window_everywhere(reader, fields)


def window_everywhere(reader: Reader, fields: Fields) -> None:
    """The window of every layer, where there is one."""
    fields["window"] = reader.count("window", "sliding_window", DERIVED)


def _switched_window(reader: Reader, fields: Fields, windowed: int) -> None:
    """Windows of Qwen models: off unless use_sliding_window; then as layer_types has them, or in `windowed` layers."""
    kinds = reader.kinds("layer_types", fields.get("layers", 0), _SLIDING)
    if reader.flag("use_sliding_window", default=False) and reader.get("sliding_window") is not None:
        _use_window(reader, fields, "sliding_window", windowed if kinds is None else len(kinds) - kinds.count(FULL))
    elif kinds and kinds.count(FULL) < len(kinds):
        reader.problem("layer_types", "names sliding_attention, but use_sliding_window or sliding_window is off")


def qwen2(reader: Reader, fields: Fields) -> None:
    """Windows from layer max_window_layers on."""
    on = reader.get("use_sliding_window") is True
    first = (reader.whole("max_window_layers", low=0) or 0) if on else 0
    _switched_window(reader, fields, max(0, fields.get("layers", 0) - first))


def qwen2_moe(reader: Reader, fields: Fields) -> None:
    """Windows in every other of the first max_window_layers layers."""
    on = reader.get("use_sliding_window") is True
    last = (reader.whole("max_window_layers", low=0) or 0) if on else 0
    _switched_window(reader, fields, len(range(0, min(last, fields.get("layers", 0)), 2)))
    _sparse_step(reader, fields)


def qwen3_moe(reader: Reader, fields: Fields) -> None:
    """Windows in every layer."""
    _switched_window(reader, fields, fields.get("layers", 0))
    _sparse_step(reader, fields)


def _sparse_step(reader: Reader, fields: Fields) -> None:
    """Experts in every decoder_sparse_step-th layer that mlp_only_layers does not name."""
    layers = fields.get("layers", 0)
    step = reader.whole("decoder_sparse_step", 1) or 1
    dense = reader.indices("mlp_only_layers", layers) or []
    chosen = [i for i in range(step - 1, layers, step) if i not in dense]
    if layers and not chosen:
        reader.problem("decoder_sparse_step", "leaves no layer with experts")
    _experts_at(fields, chosen)


def deepseek(reader: Reader, fields: Fields) -> None:
    """Experts of a token are chosen in few groups, each of which lies on a node."""
    groups, chosen = reader.whole("n_group", DERIVED), reader.whole("topk_group", DERIVED)
    if groups and chosen and chosen < groups:
        fields["routed_nodes"] = chosen


def llama4(reader: Reader, fields: Fields) -> None:
    """Chunked attention in layers with rotary embeddings; experts in every few layers."""
    layers = fields.get("layers", 0)
    step = reader.whole("interleave_moe_layer_step", 1) or 1
    interval = reader.whole("no_rope_layer_interval", 4) or 4
    moe = reader.indices("moe_layers", layers)
    chosen = list(range(step - 1, layers, step)) if moe is None else moe
    if layers and not chosen:
        reader.problem("moe_layers" if moe is not None else "interleave_moe_layer_step", "leaves no layer with experts")
    _experts_at(fields, chosen)
    kinds = reader.kinds("layer_types", layers, _CHUNKED)
    rotary = _rotary_layers(reader, layers, interval)
    chunked = rotary if kinds is None else len(kinds) - kinds.count(FULL)
    if reader.get("attention_chunk_size") is not None:
        _use_window(reader, fields, "attention_chunk_size", chunked)


def _rotary_layers(reader: Reader, layers: int, interval: int) -> int:
    """How many layers of Llama 4 have rotary embeddings (and chunked attention)."""
    flags = reader.get("no_rope_layers")
    if not flags:
        return layers - layers // interval
    if not isinstance(flags, list) or len(flags) != layers or any(flag not in (0, 1) for flag in flags):
        reader.problem("no_rope_layers", f"must be 0 or 1 for each of {layers} layers")
        return layers
    return sum(flags)


def gemma3(reader: Reader, fields: Fields) -> None:
    """Full attention in every sixth layer."""
    period = reader.whole("sliding_window_pattern", 6) or 6
    alternate(reader, fields, period)


def cohere2(reader: Reader, fields: Fields) -> None:
    """Full attention in every fourth layer."""
    period = reader.whole("sliding_window_pattern", 4) or 4
    alternate(reader, fields, period)


def opt(reader: Reader, fields: Fields) -> None:
    """No final norm where norms stand after each part; an embedding narrower than the stream."""
    before = reader.flag("do_layer_norm_before", default=True)
    fields["final_norm"] = before and not reader.flag("_remove_final_layer_norm", default=False)
    if fields.get("embedding_dim") == fields.get("hidden"):
        fields.pop("embedding_dim", None)


def bloom(reader: Reader, fields: Fields) -> None:
    """The MLP is always four times as wide."""
    if "hidden" in fields:
        reader.only("n_inner", 4 * fields["hidden"])


def mpt(reader: Reader, fields: Fields) -> None:
    """expansion_ratio widens the MLP; no_bias leaves out every bias."""
    fields["ffn"] = fields.get("ffn", 1) * fields.get("hidden", 1)
    for bias in ("norm_bias", "qkv_bias", "output_bias", "mlp_bias"):
        fields[bias] = not reader.flag("no_bias", default=True)


def gptj(reader: Reader, fields: Fields) -> None:
    """Rotary embeddings turn the first rotary_dim numbers of a head."""
    rotary, width = reader.whole("rotary_dim", DERIVED), fields.get("hidden", 0) // fields.get("heads", 1)
    if rotary and rotary > width > 0:
        reader.problem("rotary_dim", f"{rotary} is more than the {width} of a head")
    fields["rotary_share"] = min(1.0, (rotary or width) / max(1, width)) or 1.0


def falcon(reader: Reader, fields: Fields) -> None:
    """Two generations: one key/value head and one norm (7B), or several heads and two norms (40B, 180B)."""
    new = reader.flag("new_decoder_architecture", default=False)
    if reader.flag("multi_query", default=True) and not new:
        fields["kv_heads"] = 1
    elif new:
        fields["kv_heads"] = reader.count("kv_heads", "num_kv_heads n_head_kv", DERIVED)
    fields["positions"] = "alibi" if reader.flag("alibi", default=False) else "rope"
    fields["parallel"] = reader.flag("parallel_attn", default=True)
    one = fields["parallel"] and reader.get("num_ln_in_parallel_attn") != 2
    fields["norms"] = 1 if one and (not new or reader.get("num_ln_in_parallel_attn") == 1) else 2


def shared_norm(reader: Reader, fields: Fields) -> None:
    """One norm where attention and MLP run in parallel."""
    fields["norms"] = 1 if fields["parallel"] else 2


def roberta(reader: Reader, fields: Fields) -> None:
    """The first two rows of the position table stand for padding."""
    rows = fields.get("max_positions", 3)
    if rows < 3:
        reader.problem(reader.used["max_positions"], f"must be more than 2, not {rows}")
    fields["max_positions"] = max(1, rows - 2)


def _encoder(reader: Reader, fields: Fields, **keys: str) -> None:
    """An encoder beside the decoder, its counts read from their own keys."""
    own = Reader(reader.config, reader.source, reader.problems, reader.prefix)
    counts = {name: own.count(name, key) for name, key in keys.items()}
    fields["encoder"] = {name: value for name, value in counts.items() if value is not None}
    heads = fields["encoder"].get("heads")
    if heads and fields.get("hidden", 0) % heads:
        reader.problem(own.used["heads"], f"{heads} must divide {reader.used['hidden']} {fields['hidden']}")


def t5(reader: Reader, fields: Fields, default: str = "relu") -> None:
    """The MLP is gated where feed_forward_proj says so; decoder layers default to those of the encoder."""
    _encoder(reader, fields, layers="num_layers")
    fields.setdefault("layers", fields["encoder"].get("layers"))
    projection = default if reader.get("feed_forward_proj") is None else reader.get("feed_forward_proj")
    if isinstance(projection, str):
        fields["gated"] = projection.startswith("gated-")
    else:
        reader.problem("feed_forward_proj", 'must be text such as "relu" or "gated-gelu"')


def mt5(reader: Reader, fields: Fields) -> None:
    """T5 whose MLP is gated unless feed_forward_proj says otherwise."""
    t5(reader, fields, "gated-gelu")


def bart(reader: Reader, fields: Fields) -> None:
    """An encoder of its own shape."""
    _encoder(reader, fields, layers="encoder_layers", heads="encoder_attention_heads", ffn="encoder_ffn_dim")
