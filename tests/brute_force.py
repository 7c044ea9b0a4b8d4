"""A training step counted the long way: every tensor, multiply and message of every device, in plain Python.

Independent of hwsim: a tiny model, a strategy and the bytes per number come in as plain dicts, and everything is listed
layer by layer, stage by stage, device by device, send by send. Exact: integers and fractions, no floats.

Conventions that hwsim chose and this file adopts (each could be chosen otherwise):

* Chunk ``c * pp + i`` belongs to stage ``i``; left-over layers go one each to the chunks after the first.
* A set in flight on an interleaved stage counts the mean number of layers of the stage's chunks (``mean_sets=False``
  gives the exact peak for chunks of unequal size).
* Full recompute keeps each layer's input; selective keeps q, k, v and runs attention (and its ring exchange) again.
* Unfused attention multiplies the whole square of scores; fused attention the causal triangle (or the window's band,
  its mean over the cp members), and its backward kernel five such multiplies.
* A boundary between chunks is sent in tp pieces; without sequence parallelism the receivers gather them again (SC'21,
  section 4.1: scatter/gather).
* ZeRO 1 scatters gradients and gathers weights once per step, ZeRO 2 scatters every micro-batch (with a
  pipeline: once per step, gradients kept whole), ZeRO 3 also gathers
  every micro-batch, forward and backward. Replicas of a shard group all-reduce their shards once per step.
* Tied embeddings on two stages all-reduce their gradient once per step, as much of it as a device holds (the shard with
  ZeRO 2 and 3); counted as `dp`, as its time is.
* Not counted, being scalars or vectors once per step: gradients of norms, row-parallel biases and position tables that
  sequence parallelism leaves partial over tp, those of key/value heads copied where tp exceeds them, the gradient norm.
* Workspace: one communication bucket where dp x cp > 1; with ZeRO 3 two layers of weights and half their gradients, and
  all weights outside the layers; what one layer drops and computes again plus its gradients, or all logits alive,
  whichever is more.
* A group that splits unevenly over the domains of a tier (see `Step.nested`) is counted send by send here; hwsim takes
  the group that is split worst, which is never less.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import prod

Shape = tuple[int, ...]
Matmul = tuple[int, int, int, Fraction]
"""m, n, k and how often."""
Message = tuple[str, str, Fraction]
"""Collective, kind of group, payload in bytes (the whole vector, as nccl-tests count it)."""


@dataclass
class Op:
    """What one operator holds, multiplies, keeps and sends, for one micro-batch on one device."""

    weights: list[Shape] = field(default_factory=list)
    forward: list[Matmul] = field(default_factory=list)
    backward: list[Matmul] = field(default_factory=list)
    saved: list[tuple[Shape, int]] = field(default_factory=list)
    forward_messages: list[Message] = field(default_factory=list)
    backward_messages: list[Message] = field(default_factory=list)
    selective: bool = False
    kept: list[tuple[Shape, int]] = field(default_factory=list)


def tensor_bytes(tensors: list[tuple[Shape, int]]) -> int:
    """Bytes of tensors given by shape and bytes per number."""
    return sum(prod(shape) * each for shape, each in tensors)


def matmul_flops(matmuls: list[Matmul]) -> Fraction:
    """A multiply and an add per product."""
    return sum((2 * m * n * k * times for m, n, k, times in matmuls), Fraction(0))


class Step:
    """One training step of `model` under `strategy`; `bytes_of` gives bytes per number, `domains` the tier sizes."""

    def __init__(
        self,
        model: dict,
        strategy: dict,
        bytes_of: dict,
        domains: tuple[int | None, ...],
        flash: bool,
        mean_sets: bool = True,
    ) -> None:
        self.m, self.s, self.e, self.flash, self.mean_sets = model, strategy, bytes_of, flash, mean_sets
        s = strategy
        self.tp, self.pp, self.vpp, self.dp, self.cp = (s[axis] for axis in ("tp", "pp", "vpp", "dp", "cp"))
        self.sp = s["sequence_parallel"]
        self.devices = self.tp * self.pp * self.dp * self.cp
        self.micro_batches = s["global_batch"] // (self.dp * s["micro_batch"])
        self.rows = (s["micro_batch"], s["seq_len"] // self.cp)
        self.residual_rows = (s["micro_batch"], s["seq_len"] // self.cp // (self.tp if self.sp else 1))
        self.heads = model["heads"] // self.tp
        self.kv_heads = self.local_kv_heads()
        self.ffn = model["ffn"] // self.tp
        self.vocab = -(-model["vocab"] // self.tp)
        self.layer, self.embedding, self.head = self.layer_ops(), self.embedding_ops(), self.head_ops()
        self.chunks = self.split_layers()
        self.domains = self.fill_domains(domains)

    # ---- the model on one device -------------------------------------------------------------------------------------

    def local_kv_heads(self) -> int:
        """Distinct key/value heads that the query heads of each tp member read; the same number on all."""
        group = self.m["heads"] // self.m["kv_heads"]
        each = [{head // group for head in range(r * self.heads, (r + 1) * self.heads)} for r in range(self.tp)]
        assert len({len(heads) for heads in each}) == 1
        return len(each[0])

    def linear(self, out: int, inner: int, bias: bool, saved_rows: Shape) -> Op:
        rows = prod(self.rows)
        return Op(
            weights=[(out, inner), *([(out,)] if bias else [])],
            forward=[(rows, out, inner, Fraction(1))],
            backward=[(rows, inner, out, Fraction(1)), (out, inner, rows, Fraction(1))],
            saved=[((*saved_rows, inner), self.e["saved"])],
        )

    def norm(self) -> Op:
        shift = self.m["norm"] == "layernorm" and self.m["norm_bias"]
        width = (self.m["hidden"],)
        return Op(
            weights=[width, width] if shift else [width], saved=[((*self.residual_rows, *width), self.e["activation"])]
        )

    def mask(self) -> Op:
        shape = (*self.residual_rows, self.m["hidden"])
        return Op(saved=[(shape, 1)] if self.m["dropout"] else [])

    def stream(self, role: str = "activation") -> Fraction:
        """The residual stream of a micro-batch on all tp members together, in bytes of a role."""
        return Fraction(prod((*self.rows, self.m["hidden"])) * Fraction(self.e[role]))

    def enters(self, op: Op) -> Op:
        """A column-parallel multiply: its input is gathered (SP) or whole, the input's gradient is a sum over tp."""
        if self.sp:
            op.forward_messages.append(("all_gather", "tp", self.stream("gathered")))
            op.backward_messages.append(("all_gather", "tp", self.stream("gathered")))
            op.backward_messages.append(("reduce_scatter", "tp", self.stream()))
        else:
            op.backward_messages.append(("all_reduce", "tp", self.stream()))
        return op

    def leaves(self, op: Op) -> Op:
        """A row-parallel multiply: its output is a sum over tp; with SP each member needs only its rows of it."""
        if self.sp:
            op.forward_messages.append(("reduce_scatter", "tp", self.stream()))
            op.backward_messages.append(("all_gather", "tp", self.stream("gathered")))
        else:
            op.forward_messages.append(("all_reduce", "tp", self.stream()))
        return op

    def layer_ops(self) -> list[Op]:
        m, hidden, d = self.m, self.m["hidden"], self.m["head_dim"]
        qkv = self.linear((self.heads + 2 * self.kv_heads) * d, hidden, m["qkv_bias"], self.residual_rows)
        output = self.linear(hidden, self.heads * d, m["output_bias"], self.rows)
        up = self.linear(self.ffn * (2 if m["gated"] else 1), hidden, m["mlp_bias"], self.residual_rows)
        down = self.linear(hidden, self.ffn, m["mlp_bias"], self.rows)
        qk_norm = Op(weights=[(d,), (d,)], saved=[((*self.rows, self.heads + self.kv_heads, d), self.e["activation"])])
        activation = Op(saved=[((*self.rows, self.ffn), self.e["activation"])] * (2 if m["gated"] else 1))
        attention = self.fused() if self.flash else self.unfused()
        return [
            self.norm(),
            self.enters(qkv),
            *([qk_norm] if m["qk_norm"] else []),
            attention,
            self.leaves(output),
            self.mask(),
            self.norm(),
            self.enters(up),
            activation,
            self.leaves(down),
            self.mask(),
        ]

    def exchange(self, op: Op) -> Op:
        """Keys and values go round the cp ring; backward again, and their gradients with them."""
        shape = (2, self.s["micro_batch"], self.s["seq_len"], self.kv_heads, self.m["head_dim"])
        whole = Fraction(tensor_bytes([(shape, self.e["activation"])]))
        op.forward_messages.append(("all_gather", "cp", whole))
        op.backward_messages += [("all_gather", "cp", whole), ("reduce_scatter", "cp", whole)]
        return op

    def qkv_tensors(self) -> list[tuple[Shape, int]]:
        d, each = self.m["head_dim"], self.e["activation"]
        return [((*self.rows, count, d), each) for count in (self.heads, self.kv_heads, self.kv_heads)]

    def fused(self) -> Op:
        d, seq, window = self.m["head_dim"], self.s["seq_len"], self.m["window"] or self.s["seq_len"]
        piece = seq // (2 * self.cp) if self.cp > 1 else seq
        held = [(r, 2 * self.cp - 1 - r) if self.cp > 1 else (0,) for r in range(self.cp)]
        pairs = [sum(min(i + 1, window) for c in two for i in range(c * piece, (c + 1) * piece)) for two in held]
        if window == seq:
            assert len(set(pairs)) == 1  # an early and a late piece each: the triangle is dealt out evenly
        times = Fraction(sum(pairs), self.cp) * self.s["micro_batch"] * self.heads
        return self.exchange(
            Op(
                forward=[(1, 1, d, times), (1, d, 1, times)],
                backward=[(1, 1, d, times), (1, 1, d, times), (1, d, 1, times), (1, d, 1, times), (1, d, 1, times)],
                saved=[*self.qkv_tensors(), ((*self.rows, self.heads), 4)],
                selective=True,
                kept=self.qkv_tensors(),
            )
        )

    def unfused(self) -> Op:
        d, seq, rows = self.m["head_dim"], self.s["seq_len"], self.rows[1]
        times = Fraction(self.s["micro_batch"] * self.heads)
        scores = (self.s["micro_batch"], self.heads, rows, seq)
        each = self.e["activation"]
        probabilities = [(scores, each)]
        dropped = [(scores, 1), (scores, each)] if self.m["dropout"] else []
        return self.exchange(
            Op(
                forward=[(rows, seq, d, times), (rows, d, seq, times)],
                backward=[(rows, seq, d, times), (seq, d, rows, times), (rows, d, seq, times), (seq, d, rows, times)],
                saved=[*self.qkv_tensors(), *probabilities, *dropped],
                selective=True,
                kept=self.qkv_tensors(),
            )
        )

    def embedding_ops(self) -> list[Op]:
        m, hidden = self.m, self.m["hidden"]
        table = self.mask()
        table.weights.append((self.vocab, hidden))
        if m["positions"] == "learned":
            table.weights.append((m["max_positions"] + m["position_offset"], hidden))
        return [self.leaves(table), *([self.norm()] if m["embedding_norm"] else [])]

    def head_ops(self) -> list[Op]:
        logits = self.linear(self.vocab, self.m["hidden"], self.m["head_bias"], self.residual_rows)
        per_token = Fraction(prod(self.rows) * 4)  # the largest logit, the target's logit, the sum of exponentials
        loss = Op(forward_messages=[("all_reduce", "tp", per_token)] * 3)
        return [*([self.norm()] if self.m["final_norm"] else []), self.enters(logits), loss]

    # ---- stages ------------------------------------------------------------------------------------------------------

    def split_layers(self) -> list[int]:
        """Layers of every chunk."""
        chunks = [0] * (self.pp * self.vpp)
        for index in range(len(chunks)):
            chunks[index] = self.m["layers"] // len(chunks)
        for index in range(self.m["layers"] - sum(chunks)):
            chunks[index + 1] += 1
        assert sum(chunks) == self.m["layers"]
        return chunks

    def stage_of(self, chunk: int) -> int:
        return chunk % self.pp

    def stage_chunks(self, stage: int) -> list[int]:
        return [chunk for chunk in range(len(self.chunks)) if self.stage_of(chunk) == stage]

    def chunk_ops(self, chunk: int) -> list[tuple[Op, bool]]:
        """Operators of a chunk, and whether each belongs to a layer (only those are run again)."""
        ops = [(op, False) for op in self.embedding] if chunk == 0 else []
        for _ in range(self.chunks[chunk]):
            ops += [(op, True) for op in self.layer]
        if chunk == len(self.chunks) - 1:
            ops += [(op, False) for op in self.head]
        return ops

    def runs_again(self, op: Op, in_layer: bool) -> bool:
        return in_layer and (self.s["recompute"] == "full" or (self.s["recompute"] == "selective" and op.selective))

    def parameters(self, stage: int) -> int:
        """Weights on one device of a stage before ZeRO; a tied table is held once where both ends meet."""
        held = 0
        for chunk in self.stage_chunks(stage):
            for op, _ in self.chunk_ops(chunk):
                held += sum(prod(shape) for shape in op.weights)
        both_ends = stage == 0 and self.pp == 1
        return held - (self.tied_table() if both_ends else 0)

    def tied_table(self) -> int:
        return self.vocab * self.m["hidden"] if self.m["tied_embeddings"] else 0

    def flops(self, stage: int) -> Fraction:
        """Multiplied by one device of a stage in a step."""
        total = Fraction(0)
        for chunk in self.stage_chunks(stage):
            for op, in_layer in self.chunk_ops(chunk):
                again = 2 if self.runs_again(op, in_layer) else 1
                total += again * matmul_flops(op.forward) + matmul_flops(op.backward)
        return self.micro_batches * total

    # ---- schedule and memory -----------------------------------------------------------------------------------------

    def schedule(self, stage: int) -> list[tuple[str, int, int]]:
        """Forward and backward passes of a stage in Megatron's order: (F or B, which of its chunks, micro-batch)."""
        total, group = self.micro_batches * self.vpp, self.pp * self.vpp
        if self.s["schedule"] == "gpipe":
            warm_up = total
        elif self.s["schedule"] == "1f1b":
            warm_up = min(self.pp - stage - 1, total)
        else:
            warm_up = min(2 * (self.pp - stage - 1) + (self.vpp - 1) * self.pp, total)

        def unit(k: int, forward: bool) -> tuple[str, int, int]:
            chunk = k % group // self.pp if self.vpp > 1 else 0
            batch = k // group * self.pp + k % self.pp if self.vpp > 1 else k
            return ("F", chunk, batch) if forward else ("B", self.vpp - 1 - chunk, batch)

        passes = [unit(k, True) for k in range(warm_up)]
        for k in range(total - warm_up):
            passes += [unit(warm_up + k, True), unit(k, False)]
        return passes + [unit(k, False) for k in range(total - warm_up, total)]

    def in_flight(self, stage: int) -> list[Counter[int]]:
        """After every pass: how many micro-batches of each of the stage's chunks wait for their backward pass."""
        alive: set[tuple[int, int]] = set()
        history = []
        for direction, chunk, batch in self.schedule(stage):
            if direction == "F":
                assert (chunk, batch) not in alive
                alive.add((chunk, batch))
            else:
                alive.remove((chunk, batch))
            history.append(Counter(chunk for chunk, _ in alive))
        assert not alive
        return history

    def kept_bytes(self, op: Op, in_layer: bool) -> int:
        return tensor_bytes(op.kept if self.runs_again(op, in_layer) else op.saved)

    def layer_kept_bytes(self) -> int:
        """What one layer keeps for the backward pass."""
        if self.s["recompute"] == "full":
            return tensor_bytes([((*self.residual_rows, self.m["hidden"]), self.e["activation"])])
        return sum(self.kept_bytes(op, True) for op in self.layer)

    def activation_bytes(self, stage: int) -> Fraction:
        """The most that is kept at any time."""
        chunks = self.stage_chunks(stage)
        mean_layers = Fraction(sum(self.chunks[chunk] for chunk in chunks), len(chunks))
        sizes = []
        for chunk in chunks:
            layers = mean_layers if self.mean_sets else Fraction(self.chunks[chunk])
            ends = sum(self.kept_bytes(op, False) for op, in_layer in self.chunk_ops(chunk) if not in_layer)
            sizes.append(layers * self.layer_kept_bytes() + ends)
        return max(
            sum((n * sizes[chunk] for chunk, n in alive.items()), Fraction(0)) for alive in self.in_flight(stage)
        )

    def loss_bytes(self, stage: int) -> int:
        """Logits of every micro-batch between its loss and its backward pass."""
        if stage != self.pp - 1:
            return 0
        waiting = max(alive[self.vpp - 1] for alive in self.in_flight(stage))
        return waiting * tensor_bytes([((*self.rows, self.vocab), self.e["logit"])])

    def workspace_bytes(self, stage: int) -> Fraction:
        columns = self.ffn * (2 if self.m["gated"] else 1)
        whole_layer = sum(tensor_bytes(op.saved) for op in self.layer)
        gradients = tensor_bytes([((*self.rows, self.m["hidden"] + columns), self.e["activation"])])
        layers = sum(size for chunk, size in enumerate(self.chunks) if chunk % self.pp == stage)
        again = max(whole_layer - self.layer_kept_bytes(), 0) + gradients if layers else 0
        weights = sum(prod(shape) for op in self.layer for shape in op.weights)
        streams = self.s["zero"] == 3 and self.s["shard"] > 1
        outside = self.parameters(stage) - layers * weights
        fetched = min(2, layers) * weights * (self.e["weight"] + Fraction(self.e["reduce"], 2))
        gathered = fetched + outside * self.e["weight"] if streams else 0
        bucket = self.e["bucket"] if self.dp * self.cp > 1 else 0
        return Fraction(gathered) + bucket + max(self.loss_bytes(stage), again)

    def scatters_always(self) -> bool:
        """Whether gradients are scattered every micro-batch."""
        return self.s["zero"] == 3 or (self.s["zero"] == 2 and self.pp == 1)

    def memory(self, stage: int) -> dict[str, Fraction]:
        """Bytes by part on one device of a stage."""
        held = Fraction(self.parameters(stage))

        def kept(from_stage: int) -> Fraction:
            sharded = self.scatters_always() if from_stage == 2 else self.s["zero"] >= from_stage
            return held / self.s["shard"] if sharded else held

        return {
            "weights": kept(3) * self.e["weight"],
            "gradients": kept(2) * self.e["gradient"],
            "optimizer": kept(1) * (self.e["master"] + self.e["moments"]),
            "activations": self.activation_bytes(stage),
            "workspace": self.workspace_bytes(stage),
        }

    def worst_memory(self) -> dict[str, Fraction]:
        """Parts of the stage that holds most."""
        return max((self.memory(stage) for stage in range(self.pp)), key=lambda parts: sum(parts.values()))

    # ---- devices, groups and messages --------------------------------------------------------------------------------

    def fill_domains(self, sizes: tuple[int | None, ...]) -> list[int]:
        """Devices in a domain of each tier: as many inner domains as divide the job evenly; the last holds all."""
        filled: list[int] = []
        inner = 1
        for size in sizes:
            limit = min(size or self.devices, self.devices)
            fitting = [n for n in range(inner, limit + 1, inner) if self.devices % n == 0]
            inner = max(fitting, default=inner)
            filled.append(inner)
        filled[-1] = self.devices
        return filled

    def tier(self, a: int, b: int) -> int:
        """The innermost tier with both devices in one domain."""
        return next(tier for tier, size in enumerate(self.domains) if a // size == b // size)

    def places(self) -> dict[tuple[int, ...], int]:
        """Device of each (tp, cp, dp, pp) coordinate: the first axis of the order takes neighbours."""
        axes = ("tp", "cp", "dp", "pp")
        sizes = {axis: getattr(self, axis) for axis in axes}
        found: dict[tuple[int, ...], int] = {}
        inner_first = self.s["order"].split("-")
        for device in range(self.devices):
            rest, at = device, {}
            for axis in inner_first:
                rest, at[axis] = divmod(rest, sizes[axis])
            found[tuple(at[axis] for axis in axes)] = device
        assert len(found) == self.devices
        return found

    def groups(self, kind: str, stage: int) -> list[list[int]]:
        """Groups of a stage's devices that take part in one collective."""
        place = {key: device for key, device in self.places().items() if key[3] == stage}
        same = {"tp": lambda k: k[1:], "cp": lambda k: (k[0], k[2], k[3])}.get(kind, lambda k: (k[0], k[3]))
        by_key: dict[tuple[int, ...], list[int]] = {}
        for key, device in place.items():
            by_key.setdefault(same(key), []).append(device)
        whole = [sorted(group) for group in by_key.values()]
        shard = self.s["shard"]
        if kind == "shard":
            return [group[i : i + shard] for group in whole for i in range(0, len(group), shard)]
        if kind == "replica":
            return [group[i::shard] for group in whole for i in range(shard)]
        return whole

    def collectives(self, stage: int) -> Counter[Message]:
        """Every collective that each device of a stage takes part in, and how often in a step."""
        listed: Counter[Message] = Counter()
        for chunk in self.stage_chunks(stage):
            for op, in_layer in self.chunk_ops(chunk):
                recomputed = op.forward_messages if self.runs_again(op, in_layer) else []
                for message in (*op.forward_messages, *recomputed, *op.backward_messages):
                    listed[message] += self.micro_batches
            received = (chunk > 0) + (chunk < len(self.chunks) - 1)
            if self.pp > 1 and not self.sp:
                listed["all_gather", "tp", self.stream()] += received * self.micro_batches
        zero, times = self.s["zero"], self.micro_batches
        held = Fraction(self.parameters(stage))
        gradients, weights = held * self.e["reduce"], held * self.e["weight"]
        if zero == 0:
            listed["all_reduce", "data", gradients] += 1
        else:
            listed["reduce_scatter", "shard", gradients] += times if self.scatters_always() else 1
            listed["all_gather", "shard", weights] += 2 * times if zero == 3 else 1
            listed["all_reduce", "replica", gradients / self.s["shard"]] += 1
        return listed

    def sends(self) -> Counter[tuple[str, int, int]]:
        """Bytes of a step by (kind of group, sender, receiver)."""
        total: Counter[tuple[str, int, int]] = Counter()
        for stage in range(self.pp):
            for (collective, kind, payload), times in self.collectives(stage).items():
                for group in self.groups(kind, stage):
                    for (i, j), pieces in ring(collective, len(group)).items():
                        total[kind, group[i], group[j]] += times * payload * pieces / len(group)
        place = self.places()
        if self.pp > 1:
            for (tp, cp, dp, stage), device in place.items():
                for chunk in self.stage_chunks(stage):
                    for neighbour in (chunk + 1, chunk - 1):  # the output forward, the input's gradient backward
                        if 0 <= neighbour < len(self.chunks):
                            other = place[tp, cp, dp, self.stage_of(neighbour)]
                            total["pp", device, other] += self.micro_batches * self.stream() / self.tp
                if stage == 0 and self.tied_table():
                    pair = (device, place[tp, cp, dp, self.pp - 1])
                    cut = self.s["shard"] if self.scatters_always() else 1
                    kept = Fraction(self.tied_table() * self.e["reduce"], cut)
                    for (i, j), pieces in ring("all_reduce", 2).items():
                        total["tied", pair[i], pair[j]] += kept * pieces / 2
        return total

    def traffic(self) -> tuple[dict[str, Fraction], list[Fraction]]:
        """Bytes sent by the busiest device of each axis, and by tier.

        By tier: what the busiest device sends of each kind, times the share of all bytes of that kind that go through
        the tier.
        """
        sends = self.sends()
        tiers = [Fraction(0)] * len(self.domains)
        axes = {"tp": ["tp"], "cp": ["cp"], "pp": ["pp"], "dp": ["data", "shard", "replica", "tied"]}
        busiest: dict[str, Fraction] = {}
        for axis, kinds in axes.items():
            by_device = [{kind: Fraction(0) for kind in kinds} for _ in range(self.devices)]
            through = {kind: [Fraction(0)] * len(tiers) for kind in kinds}
            for (kind, sender, receiver), size in sends.items():
                if kind in kinds:
                    by_device[sender][kind] += size
                    through[kind][self.tier(sender, receiver)] += size
            most = max(by_device, key=lambda sent: sum(sent.values()))
            busiest[axis] = sum(most.values(), Fraction(0))
            for kind in kinds:
                everything = sum(through[kind])
                for tier, size in enumerate(through[kind]):
                    tiers[tier] += most[kind] * size / everything if everything else 0
        return busiest, tiers

    def nested(self) -> bool:
        """Whether every group fills the domains it touches evenly, so that all groups of an axis are split alike."""
        spans, span = [], 1
        for axis in self.s["order"].split("-"):
            span *= getattr(self, axis)
            spans.append(span)
        return all(a % b == 0 or b % a == 0 for a in spans for b in self.domains)


@cache
def ring(collective: str, size: int) -> Counter[tuple[int, int]]:
    """Pieces (1/size of the payload) that each member sends to each other, played through until everyone is served."""
    sent: Counter[tuple[int, int]] = Counter()
    if collective in ("reduce_scatter", "all_reduce"):
        summed = [[{i} for _ in range(size)] for i in range(size)]  # member, piece -> whose terms are in it
        for step in range(size - 1):
            moving = [(i, (i - step - 1) % size, set(summed[i][(i - step - 1) % size])) for i in range(size)]
            for i, piece, terms in moving:
                summed[(i + 1) % size][piece] |= terms
                sent[i, (i + 1) % size] += 1
        assert all(len(summed[i][i]) == size for i in range(size))
    if collective in ("all_gather", "all_reduce"):
        have = [{i} for i in range(size)]
        for step in range(size - 1):
            for i in range(size):
                have[(i + 1) % size].add((i - step) % size)
                sent[i, (i + 1) % size] += 1
        assert all(len(pieces) == size for pieces in have)
    return sent


def whole_parameters(model: dict) -> int:
    """Weights of the model on one device, tied ones once."""
    alone = dict.fromkeys(("tp", "pp", "vpp", "dp", "cp", "shard", "micro_batch", "global_batch", "seq_len"), 1)
    alone |= {"zero": 0, "recompute": "none", "sequence_parallel": False, "schedule": "1f1b", "order": "tp-cp-dp-pp"}
    each = dict.fromkeys(("activation", "saved", "gathered"), 2)
    return Step(model, alone, each, (1,), flash=True).parameters(0)
