"""A replica under steady traffic, in closed form and in columns: every strategy against every batch at once.

With a batch of n requests in flight a step makes n tokens; a request also needs its prompt read, chunk by chunk beside
the decodes of the others. Little's law gives the rest: requests leave at rate ``1 / (out * D(n) / n + P)``, where D is
a step of decodes alone and P what one prompt adds to the steps that hold it; a token of a request takes
``D(n) + n P / out``. Queues are left to the event model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hwsim.analytic.cache import held_bytes, room
from hwsim.analytic.serving import Cost, Served, attention_cost, head_cost, rows_cost
from hwsim.formulas.serving import accepted_tokens
from hwsim.formulas.types import Numeric
from hwsim.ops.plan import Cached
from hwsim.ops.serving import sharing
from hwsim.specs.strategy import Strategies


@dataclass(frozen=True)
class Steady:
    """Columns of strategies (rows) against batches of a replica (last axis)."""

    batch: Numeric
    """Requests in flight on a replica."""
    tpot_s: Numeric
    """Of a token beside the prompts of others."""
    rate: Numeric
    """Requests per second of a replica."""
    ttft_s: Numeric
    """Least time to first token beside the decodes of the others: no queue."""
    devices: Numeric
    """Of a replica."""
    fits: Numeric
    """Whether the caches of the batch fit."""


def steady(served: Served, s: Strategies, batch: Numeric) -> Steady:
    """Cost every strategy (columns of shape (k, 1)) with every batch (shape (m,))."""
    job, engine, prompt = served.job, served.job.engine, served.prompt_len
    ranks = sharing(s)
    each = np.ceil(batch / (ranks * np.minimum(s.pp, batch)))
    width = 1.0 + job.draft_tokens
    context = max(prompt + 0.5 * job.output_len, width)
    alone = rows_cost(served, s, each * width) + head_cost(served, s, each * width)
    alone = alone + attention_cost(served, s, Cached(each, width, context, job.cache_bytes))
    tokens = max(float(prompt - int(job.prefix_hit * prompt)), 1.0)
    chunk = min(tokens, float(engine.token_budget))
    chunk_cost = attention_cost(served, s, Cached(1.0, chunk, 0.5 * (prompt + chunk), job.cache_bytes))
    both = rows_cost(served, s, each * width + chunk / ranks) + head_cost(served, s, each * width + 1.0)
    both = both + attention_cost(served, s, Cached(each, width, context, job.cache_bytes)) + chunk_cost
    decode_s = paced(served, alone, batch, ranks) / accepted_tokens(job.draft_tokens, job.acceptance)
    chunks = np.ceil(tokens / chunk)
    mixed_s = chunks * paced(served, both, batch, ranks, eager=chunk > engine.graph_prompt)
    prompt_s = np.maximum(mixed_s - chunks * decode_s, 0.0)
    out = float(job.output_len)
    tpot_s = decode_s + batch * prompt_s / out
    return Steady(
        batch=batch,
        tpot_s=tpot_s,
        rate=batch / (out * tpot_s),
        ttft_s=mixed_s + engine.request_host + engine.prompt_host * prompt,
        devices=s.tp * s.pp * ranks,
        fits=fitting(served, s, batch, ranks),
    )


def paced(served: Served, cost: Cost, sequences: Numeric, ranks: Numeric, eager: bool = False) -> Numeric:
    """A step: the slower of device and host, and what the device waits for. [s]"""
    engine = served.job.engine
    graph = np.where(sequences <= engine.graph_batch, 0.0 if eager else 1.0, 0.0)
    launch_s = served.hardware.accelerator.kernels.launch + engine.kernel_dispatch
    device_s = cost.total_s + cost.kernels * engine.kernel_gap
    host_s = (1.0 - graph) * cost.kernels * launch_s
    return np.maximum(device_s, host_s) + engine.step_host + engine.sequence_host * sequences / ranks


def fitting(served: Served, s: Strategies, batch: Numeric, ranks: Numeric) -> Numeric:
    """Whether the caches of a batch fit, strategy by strategy (few of them: memory is no column). [-]"""
    length = float(served.prompt_len + served.job.output_len)
    rows = []
    for i in range(s.shape[0]):
        one = replace(s, **{name: getattr(s, name).reshape(-1)[i] for name in ("tp", "pp", "dp", "ep", "etp")})
        left = room(served, one)
        most = left.room_bytes / max(held_bytes(served, one, length), 1.0)
        rows.append(min(max(most, 0.0), float(served.job.engine.max_sequences)))
    return np.ceil(batch / ranks) <= np.array(rows)[:, None]
