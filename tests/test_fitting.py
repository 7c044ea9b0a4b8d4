"""Fits: known coefficients found again, bad tables refused, profiles written without losing anything else."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hwsim import fitting
from hwsim.cli.app import run
from hwsim.errors import InputFileError, UsageError
from hwsim.fitting import gemm, solver
from hwsim.fitting.fitted import Errors, Fit, errors, left_out
from hwsim.fitting.profile_writer import replace_text, with_fits, write_fits
from hwsim.fitting.solver import Coefficient, solve
from hwsim.fitting.tables import positive, read_table
from hwsim.report.fits import fit_rows, fits_view
from hwsim.report.terminal import as_text
from hwsim.specs.library import load_hardware

PROFILES = Path(__file__).parents[1] / "hardware_profiles"
TRUE = {
    "efficiency": 0.75, "k_half": 140, "tile": 128, "tile_loss": 0.4, "wave_quantisation": 0.3,
    "split_latency": "3.2 us", "throttle": 0.2, "memory_efficiency": 0.86, "memory_latency": "0.9 us",
    "cache_gain": 1.6, "weight_cache_gain": 1, "latency": "2.2 us", "floor": "0 us", "cast_bytes": 0,
    "cast_row": "0 ns",
}  # fmt: skip
RATE = {"efficiency": 0.05, "memory_efficiency": 0.05, "k_half": 0.4, "latency": 0.15, "split_latency": 0.3}
"""Relative tolerance of the coefficients that noisy rows pin down."""


def _table(profile: str, gpu: str, values: dict[str, Any], noise: float, rows: int = 700) -> pd.DataFrame:
    """Rows that the formula itself made, with noise and some outliers."""
    rng = np.random.default_rng(7)
    m = rng.choice([1, 2, 7, 16, 64, 128, 500, 1024, 4096, 8192, 32768], rows)
    n, k = (rng.choice([64, 256, 1024, 1536, 4096, 8192, 16384], rows) for _ in range(2))
    shapes = gemm.Shapes(*(x.astype(float) for x in (m, n, k)), np.ones(rows), np.ones(rows), 2.0)
    device = load_hardware(profile).accelerator
    time = shapes.predict(gemm.machine_of(device, "bf16", values)) * np.exp(rng.normal(0.0, noise, rows))
    time[:: max(rows // 20, 1)] *= 1.8
    return pd.DataFrame(
        {"gpu": gpu, "source": "made", "framework": "torch", "dtype": "bfloat16", "m": m, "n": n, "k": k,
         "latency_us": 1e6 * time}
    )  # fmt: skip


def _folder(place: Path, table: pd.DataFrame, training: dict[str, Any] | None = None) -> Path:
    (place / "kernels").mkdir()
    table.to_csv(place / "kernels" / "gemm.csv.gz", index=False)
    box = {"hardware": "NVIDIA A100-PCIe-80GB", "op": "matmul", "m": 8.0, "n": 8.0, "k": 8.0, "implied_time_us": 9.0}
    pd.DataFrame([box | (training or {})]).to_csv(place / "kernels" / "training_b200_a100pcie.csv.gz", index=False)
    return place


# Coefficients.


def test_the_fit_finds_the_coefficients_that_made_the_rows(tmp_path):
    folder = _folder(tmp_path, _table("b200-sxm", "b200", TRUE, 0.04))
    fit, library = gemm.fit_gemms(folder)
    assert library.path == ("kernels", "libraries", "torch", "gemm")
    assert (fit.profile, fit.path, fit.relative) == ("b200-sxm", ("kernels", "gemm"), "h100-sxm-80")
    assert fit.unseen is None  # no rows of the relative in this table
    for name, tolerance in RATE.items():
        found, true = (float(str(values[name]).split()[0]) for values in (fit.values, TRUE))
        assert found == pytest.approx(true, rel=tolerance), name
    assert fit.values["cast_bytes"] == 0
    assert fit.inside.rows == 700
    assert fit.inside.median < 0.04
    assert fit.outside.median < 0.045
    assert abs(fit.inside.bias) < 0.01


def test_libraries_and_dtypes_get_their_own_curves_and_relatives_are_tried(tmp_path):
    base = _table("b200-sxm", "b200", TRUE, 0.02, 150)
    slow = _table("b200-sxm", "b200", TRUE | {"latency": "9 us"}, 0.02, 150).assign(framework="vllm")
    narrow = _table("b200-sxm", "b200", TRUE, 0.02, 80).assign(dtype="fp8", framework="vllm")
    block = narrow.assign(dtype="fp8_block", latency_us=0.0)  # no curve for it, so nobody looks
    twin = _table("gb200", "gb200", TRUE, 0.02, 100)
    few = _table("b200-sxm", "b300", TRUE, 0.02, 20)
    fits = gemm.fit_gemms(_folder(tmp_path, pd.concat([base, slow, narrow, block, twin, few])))
    assert [(fit.profile, ".".join(fit.path)) for fit in fits] == [
        ("b200-sxm", "kernels.gemm"),
        ("b200-sxm", "kernels.gemm.dtypes.fp8"),
        ("b200-sxm", "kernels.libraries.torch.gemm"),
        ("b200-sxm", "kernels.libraries.vllm.gemm"),
        ("b200-sxm", "kernels.libraries.vllm.gemm.dtypes.fp8"),
        ("gb200", "kernels.gemm"),
        ("gb200", "kernels.libraries.torch.gemm"),
    ]
    latency = {fit.path: float(fit.values["latency"].split()[0]) for fit in fits}
    assert latency["kernels", "libraries", "vllm", "gemm"] > 8.0
    assert latency["kernels", "libraries", "torch", "gemm"] < 3.0
    assert fits[-2].relative == "b200-sxm"
    assert fits[-2].unseen is not None
    assert fits[-2].unseen.rows == 100
    assert fits[0].data == "300 rows (made: torch, vllm)"
    assert fits[2].data == "150 rows (made: torch)"


def test_sources_and_libraries_count_equally_among_large_shapes_and_among_others():
    table = pd.concat(
        [
            _table("b200-sxm", "b200", TRUE, 0.0, 90),
            _table("b200-sxm", "b200", TRUE, 0.0, 30).assign(framework="vllm"),
            _table("b200-sxm", "b200", TRUE, 0.0, 400).assign(source="other"),
        ]
    ).assign(library=lambda t: t["framework"])
    weight = gemm.shapes_of(table.reset_index(drop=True), "bf16").weight
    large = (table[["m", "n", "k"]] >= gemm.TRAINING_SIZE).all(axis=1).to_numpy()
    for part in (large, ~large):
        total = pd.Series(weight[part]).groupby([table["source"][part].array, table["library"][part].array]).sum()
        assert total["made"].sum() == pytest.approx(total["other"].sum())
        assert total["made"]["torch"] == pytest.approx(total["made"]["vllm"])
    assert weight[large].mean() == pytest.approx(gemm.TRAINING_WEIGHT * weight[~large].mean())


def test_solving_resists_outliers_and_respects_weights():
    x = np.linspace(1.0, 9.0, 60)
    pair = [Coefficient("a", 1.0, 0.1, 9.0), Coefficient("b", 1.0, 0.1, 9.0)]
    y = 2.0 + 3.0 * x
    y[::10] *= 3.0
    assert solve(lambda c: c[0] + c[1] * x, y, np.ones(60), pair) == pytest.approx([2.0, 3.0], rel=0.05)
    one = [Coefficient("a", 1.0, 0.1, 9.0)]
    two = np.array([2.0, 4.0])
    assert solve(lambda c: c[0] * np.ones(2), two, np.array([1.0, 99.0]), one)[0] == pytest.approx(4.0, rel=0.05)


def test_without_scipy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(UsageError, match=r"pip install 'hwsim\[fit\]'"):
        solver.solve(lambda c: c, np.ones(1), np.ones(1), [Coefficient("a", 1.0, 0.1, 9.0)])


def test_rows_of_a_shape_are_left_out_together():
    shapes = np.repeat(np.arange(20), 3)
    seen: list[np.ndarray] = []

    def fit(kept: np.ndarray) -> Callable[[], np.ndarray]:
        seen.append(kept)
        return lambda: np.where(kept, np.nan, 1.0)

    assert (left_out(shapes, fit) == 1.0).all()
    assert all(len(set(kept[shapes == shape])) == 1 for kept in seen for shape in range(20))


def test_errors_of_no_rows_are_not_a_number():
    nothing = errors(np.array([]), np.array([]))
    assert nothing.rows == 0
    assert np.isnan(nothing.median)


# Tables.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"gemm\.csv\.gz: No such file"),
        ("", r"is no CSV table: No columns"),
        ("gpu,m\nb200,1\n", r"has no column source, framework, dtype, n, k, latency_us \(it has gpu, m\)"),
        ("{head}b200,s,f,bf16,1,2,,5\n", r"row 2: k: must be a positive number up to 1e\+12, found 'nan'"),
        ("{head}b200,s,f,bf16,1,2,3,1e300\n", r"row 2: latency_us: .*up to 1e\+12, found '1e\+300'"),
        ("{head}b200,,f,bf16,1,2,3,4\nb200,s,,bf16,1,2,3,4\n", r"row 2: source: must be text.*\n.*row 3: framework"),
        ("{head}b200,s,f,fp8,1,2,3,4\nb200,s,f,fp8,1,2,3,-4\n", r"row 3: latency_us: .*found '-4'"),
        ("{head}b200,s,f,fp8,1,0,3,4\n", r"row 2: n: .*found '0'"),
        ("{head}b200,s,f,fp8,many,1,3,inf\n", r"row 2: m: .*found 'many'\n.*row 2: latency_us: .*found 'inf'"),
    ],
)
def test_a_bad_table_is_refused_by_file_row_and_column(tmp_path, text, message):
    path = tmp_path / "gemm.csv.gz"
    if text is not None:
        path.write_bytes(gzip.compress(text.format(head="gpu,source,framework,dtype,m,n,k,latency_us\n").encode()))
    with pytest.raises(InputFileError, match=message):
        gemm.read_rows(path)


def test_sources_and_libraries_named_by_numbers_are_names(tmp_path):
    table = _table("b200-sxm", "b200", TRUE, 0.02, 80).assign(source=2026)
    table["framework"] = np.arange(80) % 2
    own = gemm.fit_gemms(_folder(tmp_path, table, {"hardware": 5}))[0]
    assert own.data == "80 rows (2026: 0, 1)"


def test_half_a_gzip_file_and_no_gzip_file_are_refused(tmp_path):
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 5000)
    for name, data in (("half.csv.gz", whole[: len(whole) // 2]), ("none.csv.gz", b"a,b\n1,2\n")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputFileError, match=name):
            read_table(tmp_path / name, ("a",))


def test_rows_keep_the_line_they_came_from(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,x\n2,y\n0,y\n")
    table = read_table(path, ("a", "b"))
    assert positive(table[table["a"] > 0], path, ("a",))["a"].tolist() == [1.0, 2.0]
    with pytest.raises(InputFileError, match="row 4: a"):
        positive(table[table["b"] == "y"], path, ("a",))


# Profiles.

FOUND = Errors(10, 0.05, 0.15, 0.01)
PROFILE = """\
# A device
name: toy   # its id
price: {rent: null, note: "a, b"}
kernels:
  status: datasheet
  gemm: {efficiency: 0.5, latency: 2 us}
  stream: {efficiency: 0.9}   # assumed
tiers:
  - name: nvlink
    status: datasheet
    collectives:
      # measured one day
      send_recv:
        - {latency: 1 us}
    source: {kind: assumed, text: none}
sources:
  default:
    kind: datasheet
    text: >-
      a text that is long enough to be folded over two lines when it is written with
      a width of a hundred and twenty
"""


def _fit(*path: str, data: str = "10 rows", **values: Any) -> Fit:
    return Fit("toy", path, values, data, FOUND, FOUND)


def test_writing_changes_only_the_fields_of_the_fit_and_their_sources():
    fits = [
        _fit("kernels", "gemm", "dtypes", "fp8", efficiency=0.4, data="3 rows"),
        _fit("kernels", "gemm", efficiency=0.75, floor="3 us"),
        _fit("tiers", "nvlink", "collectives", all_reduce=[{"latency": "2 us", "efficiency": 0.5}]),
    ]
    text = with_fits(PROFILE, Path("toy.yaml"), fits, "2026-11-25")
    assert (
        text
        == """\
# A device
name: toy   # its id
price: {rent: null, note: "a, b"}
kernels:
  status: measured
  gemm:
    efficiency: 0.75
    latency: 2 us
    floor: 3 us
    dtypes:
      fp8:
        efficiency: 0.4
  stream: {efficiency: 0.9}   # assumed
tiers:
  - name: nvlink
    status: measured
    collectives:
      # measured one day
      send_recv:
        - {latency: 1 us}
      all_reduce:
        - {latency: 2 us, efficiency: 0.5}
    source:
      kind: measured
      text: >-
        fitted by hwsim fit: all_reduce: 10 rows, median error 5.0 %, p90 15 % (left out of the fit: 5.0 %, 15 %)
      date: "2026-11-25"
sources:
  default:
    kind: datasheet
    text: >-
      a text that is long enough to be folded over two lines when it is written with
      a width of a hundred and twenty
  kernels.gemm:
    kind: measured
    text: >-
      fitted by hwsim fit: 10 rows, median error 5.0 %, p90 15 % (left out of the fit: 5.0 %, 15 %); \
fp8: 3 rows, median error
      5.0 %, p90 15 % (left out of the fit: 5.0 %, 15 %)
    date: "2026-11-25"
"""
    )
    assert with_fits(text, Path("toy.yaml"), fits, "2026-11-25") == text


@pytest.mark.parametrize("kind", ["accelerators", "clusters"])
def test_writing_nothing_changes_nothing_in_any_profile(kind):
    for path in sorted((PROFILES / kind).glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        kept = [line for line in text.splitlines() if len(line) <= 120]
        assert set(kept) <= set(with_fits(text, path, [], "").splitlines()), path.name


def test_a_fitted_profile_still_loads_and_its_file_keeps_its_rights(tmp_path):
    for kind in ("accelerators", "clusters"):
        shutil.copytree(PROFILES / kind, tmp_path / kind)
    target = tmp_path / "accelerators" / "b200-sxm.yaml"
    target.chmod(0o640)
    fit = Fit("b200-sxm", ("kernels", "libraries", "toy", "gemm"), TRUE, "10 rows", FOUND, FOUND)
    assert write_fits([fit], tmp_path, "2026-11-25") == [target]
    assert target.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in target.parent.iterdir()} == {p.name for p in (PROFILES / "accelerators").iterdir()}
    device = fitting_device(tmp_path)
    assert device.kernels.libraries["toy"].gemm.efficiency == 0.75
    assert device.sources["kernels.libraries.toy.gemm"].date == "2026-11-25"


def fitting_device(profiles: Path) -> Any:
    from hwsim.specs.library import load_hardware

    return load_hardware("b200-sxm", profiles).accelerator


def test_what_cannot_be_written_says_why(tmp_path):
    (tmp_path / "accelerators").mkdir()
    with pytest.raises(UsageError, match="holds no profile toy"):
        write_fits([_fit("kernels", "gemm", efficiency=0.5)], tmp_path, "")
    path = tmp_path / "accelerators" / "toy.yaml"
    for text, message in (("a: [", "is no YAML"), ("- a", "is no profile"), ("a: \udcff", "is not UTF-8")):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(InputFileError, match=message):
            write_fits([_fit("kernels", "gemm", efficiency=0.5)], tmp_path, "")
    with pytest.raises(InputFileError, match="tiers: has no entry rail"):
        with_fits(PROFILE, path, [_fit("tiers", "rail", "collectives", send_recv=[])], "")
    with pytest.raises(UsageError, match="nowhere"):
        replace_text(tmp_path / "nowhere" / "toy.yaml", "")


# The command.


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    return _folder(tmp_path, _table("b200-sxm", "b200", TRUE, 0.03, 100))


def test_the_command_prints_fits_and_writes_only_when_asked(measured, tmp_path, capsys):
    profiles = tmp_path / "profiles"
    shutil.copytree(PROFILES, profiles)
    before = (profiles / "accelerators" / "b200-sxm.yaml").read_text()
    call = ["fit", str(measured), "--only", "gemm", "--profiles", str(profiles)]
    assert run([*call, "--json"], debug=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema_version"], answer["kinds"], answer["written"]) == (1, ["gemm"], [])
    assert answer["fits"][0]["place"] == "kernels.gemm"
    assert (profiles / "accelerators" / "b200-sxm.yaml").read_text() == before
    assert run([*call, "--write", "--date", "2026-11-25"], debug=True) == 0
    out, err = capsys.readouterr()
    assert "left-out p90" in out
    assert not err
    after = (profiles / "accelerators" / "b200-sxm.yaml").read_text()
    assert after != before
    assert 'date: "2026-11-25"' in after


def test_the_command_refuses_what_it_cannot_read(tmp_path, capsys):
    assert run(["fit", str(tmp_path), "--only", "gemm"], debug=False) == 3
    assert run(["fit", str(tmp_path), "--only", "gem"], debug=False) == 2
    assert "did you mean gemm?" in capsys.readouterr().err


def test_kinds_of_fits_that_are_there_can_be_imported():
    assert "gemm" in fitting.available()


def test_devices_left_out_have_a_table_of_their_own():
    fit = Fit("gb200", ("kernels", "gemm"), TRUE, "10 rows", FOUND, FOUND, "b200-sxm", FOUND)
    text = as_text(fits_view([fit]))
    assert "Devices left out" in text
    assert "b200-sxm" in text
    assert fit_rows([fit])[0]["unseen_median"] == 0.05
    assert "Nothing to fit" in as_text(fits_view([]))


def test_coefficients_at_a_bound_are_named_and_wild_errors_stay_short(tmp_path, capsys):
    steep = _table("b200-sxm", "b200", TRUE | {"latency": "60 us"}, 0.02, 100)  # the range ends at 40 us
    (fit, _) = gemm.fit_gemms(_folder(tmp_path, steep))
    assert "latency" in fit.at_bound
    assert "latency" in fit_rows([fit])[0]["at_bound"]
    assert "Ended at a bound" in as_text(fits_view([fit]))
    wild = Fit("toy", ("kernels", "gemm"), TRUE, "10 rows", Errors(10, 1e300, 1e300, -1e-9), FOUND)
    text = as_text(fits_view([wild]))
    assert "Ended at a bound" not in text
    assert "1.0e+302%" in text
    assert "+0.0%" in text
    assert "-0.0%" not in text


def test_a_fit_is_refused_before_it_starts(tmp_path, capsys):
    """Paths, days and empty tables: nothing is written, and nobody waits for minutes first."""
    folder = _folder(tmp_path, _table("b200-sxm", "zx81", TRUE, 0.02, 100))
    for arguments, code, message in (
        (["--record", "/nonexist/x.csv"], 2, "no folder there"),
        (["--date", "yesterday"], 2, "must be a day such as"),
        (["--write", "--profiles", str(tmp_path / "nope")], 2, "no such folder"),
        (["--record", str(tmp_path / "record.csv")], 3, "nothing to fit"),
    ):
        assert run(["fit", str(folder), "--only", "gemm", *arguments], debug=False) == code
        assert message in capsys.readouterr().err
    assert not (tmp_path / "record.csv").exists()
