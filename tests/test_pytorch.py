"""hwsim against real PyTorch models, number by number, and what `hwsim validate pytorch` says of it."""

import builtins
import json

import pytest

import hwsim
from hwsim.cli.app import run
from hwsim.errors import UsageError
from hwsim.live import compare
from hwsim.live.cases import Case, cases, timed_cases
from hwsim.live.compare import Comparison, Row
from hwsim.report.pytorch import view
from hwsim.report.terminal import as_text
from hwsim.specs.library import load_model
from hwsim.specs.model import Model

SHORT = ["validate", "pytorch", "--short", "--json"]
TINY = {"name": "tiny", "layers": 2, "hidden": 32, "heads": 4, "vocab": 50, "max_positions": 16}


def rows_of(fields: dict, attention: str = "flash", source_len: int | None = None) -> dict[str, Row]:
    """Rows of a tiny model by metric, times left out."""
    case = Case("tiny", "tiny", fields, 16, 2, attention, source_len)
    return {row.metric: row for row in compare.run(compare.Run(case, load_model(fields), "cpu"))}


def made_row(**fields: object) -> Row:
    row = {"id": "a/b", "group": "g", "metric": "parameters", "unit": "", "source": "PyTorch 2 cpu",
           "measured": 10.0, "predicted": 10.0, "tolerance": 0.0}  # fmt: skip
    return Row(**(row | fields))


@pytest.fixture(scope="module")
def found() -> Comparison:
    pytest.importorskip("torch")
    return hwsim.validate_pytorch(short=True)


class TestWithTorch:
    """Runs models."""

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        pytest.importorskip("torch")

    def test_all_but_the_peak_is_equal(self, found):
        off = [row.to_dict() for row in found.rows if row.error and row.tolerance == 0.0]
        assert not off
        assert found.holds
        assert sum(row.tolerance == 0.0 for row in found.rows) > 60

    def test_the_command_tells_what_was_found(self, found, monkeypatch, capsys):
        monkeypatch.setattr(hwsim, "validate_pytorch", lambda *_, **__: found)
        assert run(SHORT, debug=False) == 0
        assert json.loads(capsys.readouterr().out) == found.to_dict()

    def test_peaks_are_within_a_thousandth(self, found):
        peaks = [row for row in found.rows if row.metric.startswith("peak memory")]
        assert len(peaks) == 2 * len(cases(short=True))
        assert all(abs(row.error) < 1e-3 for row in peaks)

    def test_the_table_is_narrow_and_tells_every_group(self, found):
        for every_row in (False, True):
            text = as_text(view(found, every_row))
            assert max(map(len, text.splitlines())) <= 120
            assert all(group.name in text for group in found.groups)
            assert "OFF" not in text

    @pytest.mark.parametrize(
        ("changes", "attention"),
        [
            ({}, "flash"),
            ({"kv_heads": 2, "positions": "rope", "norm": "rmsnorm", "gated": True, "ffn": 40}, "unfused"),
            ({"tied_embeddings": False, "qkv_bias": False, "norm_bias": False, "head_bias": True}, "flash"),
            ({"experts": 4, "experts_per_token": 3, "expert_ffn": 24, "router_bias": True}, "unfused"),
            ({"final_norm": False, "dropout": True, "relative_buckets": 8, "positions": "none"}, "unfused"),
        ],
    )
    def test_features_one_by_one(self, changes, attention):
        rows = rows_of({**TINY, **changes}, attention)
        assert not [row.to_dict() for row in rows.values() if row.error and row.tolerance == 0.0]

    @pytest.mark.parametrize("vocab", [16, 3000])
    @pytest.mark.parametrize("tied", [True, False])
    def test_peak_wherever_it_is(self, vocab, tied):
        """A tiny vocabulary puts it into a layer, a large one into the head or the embedding."""
        row = rows_of({**TINY, "hidden": 64, "vocab": vocab, "tied_embeddings": tied})["peak memory"]
        assert abs(row.error) < 0.02

    @pytest.mark.parametrize("dropout", [True, False])
    def test_peak_in_the_softmax(self, dropout):
        """Long sequences and unfused attention: the gradients of probabilities are the largest tensors."""
        fields = {**TINY, "vocab": 64, "max_positions": 256, "dropout": dropout}
        case = Case("tiny", "tiny", fields, 256, 1, "unfused")
        row = compare.peak(compare.Run(case, load_model(fields), "cpu"))
        assert abs(row.error) < 0.02

    def test_a_textbook_layer_is_that_of_torch(self):
        """The same weights give the same numbers as torch.nn's own encoder and decoder layers."""
        import torch

        from hwsim.live.models import build, copy_layers, torch_layers

        fields = {**TINY, "positions": "none", "final_norm": False, "encoder": {"layers": 2}}
        model = Model(**fields)
        ours, theirs = build(model, "unfused"), torch_layers(model).eval()
        copy_layers(theirs, ours)
        source, target = torch.randn(2, 7, 32), torch.randn(2, 5, 32)
        later = torch.nn.Transformer.generate_square_subsequent_mask(5)
        memory = ours.encoder(source)
        torch.testing.assert_close(memory, theirs[0](source))
        expected = theirs[1](target, memory, tgt_mask=later, tgt_is_causal=True)
        torch.testing.assert_close(ours.decoder(target, memory), expected)

    def test_big_models_need_no_memory(self):
        case = next(case for case in cases(short=False) if case.id == "mixtral-8x7b")
        rows = compare.run(compare.Run(case, load_model(case.model), "cpu"))
        assert [row.metric for row in rows if row.error] == []
        assert rows[0].measured > 46e9

    def test_a_step_is_timed_where_hardware_is_given(self):
        case = Case("tiny", "tiny", TINY, 16, 2)
        row = compare.timed(compare.Run(case, load_model(TINY), "cpu"), "a100-sxm-80")
        assert (row.metric, row.unit, row.tolerance) == ("step time", "s", compare.WORST_TOLERANCE)
        assert row.measured > 0

    def test_sixteen_shapes_are_timed_and_their_median_judged(self, monkeypatch):
        shapes = [load_model(case.model) for case in timed_cases(short=False)]
        assert len({model.name for model in shapes}) == 16
        made = iter([1.0, 1.1, 1.2, 1.3])

        def timed(r, hardware):
            return r.row("step time", "s", 1.0, next(made), compare.WORST_TOLERANCE)

        monkeypatch.setattr(compare, "timed", timed)
        *rows, median = compare.step_rows("cpu", True, None, lambda name: None)
        assert [round(row.error, 3) for row in rows] == [0.0, 0.1, 0.2, 0.3]
        assert round(median.error, 3) == 0.15
        assert not median.holds

    def test_a_wrong_prediction_exits_with_5(self, monkeypatch, capsys):
        true = compare.multiplied
        monkeypatch.setattr(compare, "multiplied", lambda r: {**true(r), "forward": 1.0})
        monkeypatch.setattr(compare, "cases", lambda short: cases(short)[:1])
        monkeypatch.setattr(compare, "collective_rows", lambda *_: [])
        assert run(SHORT, debug=False) == 5
        said = capsys.readouterr()
        rows = {row["id"]: row for row in json.loads(said.out)["rows"]}
        assert not rows["gpt/forward-FLOPs"]["holds"]
        assert rows["gpt/backward-FLOPs"]["holds"]
        assert "out of tolerance: gpt/forward-FLOPs (-100.00%)" in said.err

    def test_an_unknown_device(self, capsys):
        assert run(["validate", "pytorch", "--device", "abacus"], debug=False) == 2
        assert "--device abacus" in capsys.readouterr().err

    def test_models_that_cannot_be_built_are_refused(self):
        from hwsim.live.models import refuse_unknown

        with pytest.raises(UsageError, match="alibi"):
            refuse_unknown(Model(**TINY, positions="alibi"))


def test_without_torch(monkeypatch, capsys):
    load = builtins.__import__

    def missing(name, *rest, **more):
        if name.split(".")[0] == "torch":
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert run(SHORT, debug=False) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["hwsim: PyTorch is not installed: pip install 'hwsim[torch]'"]


def test_rows_judge_themselves():
    assert made_row().holds
    assert not made_row(predicted=10.001).holds
    assert made_row(predicted=10.1, tolerance=0.02).holds
    assert made_row(predicted=99.0, tolerance=None).holds
    assert made_row(measured=0.0, predicted=0.0).holds
    assert not made_row(measured=0.0).holds
    board = Comparison((made_row(), made_row(predicted=11.0)))
    assert (board.holds, board.groups[0].equal, board.groups[0].rows) == (False, 1, 2)
    assert board.groups[0].worst == pytest.approx(0.1)
    assert "OFF" in as_text(view(board, False))
