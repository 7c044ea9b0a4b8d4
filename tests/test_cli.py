"""The commands on the good path: table, JSON, CSV, -o, the keys of the contract, one answer from CLI and Python."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hwsim
from hwsim.cli.app import run
from hwsim.cli.output import check_targets
from hwsim.errors import UsageError
from hwsim.report.plan import python_call

HWSIM = Path(sys.executable).parent / "hwsim"
GPT3 = {
    "model": "gpt-3-175b",
    "hardware": "a100-sxm-80",
    "gpus": 64,
    "tp": 8,
    "pp": 8,
    "vpp": 3,
    "micro_batch": 1,
    "global_batch": 64,
    "seq_len": 2048,
    "recompute": "full",
}
TRAIN = [
    "estimate",
    "train",
    *(text for name, value in GPT3.items() for text in (f"--{name.replace('_', '-')}", str(value))),
]
PLAN = ["plan", "--model", "gpt2", "--hardware", "a100-sxm-80", "--gpus", "8"]
GPT2 = ["estimate", "train", "--model", "gpt2"]
COMMANDS = {
    "plan": PLAN,
    "estimate train": TRAIN,
    "explain": ["explain", "--model", "70b", "--gpus", "64", "--tp", "8", "--micro-batch", "1"],
    "models list": ["models", "list"],
    "models show": ["models", "show", "70b"],
    "hardware list": ["hardware", "list"],
    "hardware show": ["hardware", "show", "h100-sxm-80"],
}
ESTIMATE_KEYS = {
    "schema_version": int,
    "kind": str,
    "model": {"name", "parameters", "active_parameters"},
    "hardware": {"name", "accelerator", "devices"},
    "strategy": {
        *("tp", "pp", "vpp", "dp", "cp", "ep", "etp", "zero", "micro_batch", "global_batch", "seq_len", "recompute"),
        *("sequence_parallel", "schedule", "precision", "optimizer"),
    },
    "fits": bool,
    "step_time_s": float,
    "step_time_low_s": float,
    "step_time_high_s": float,
    "time_s": set(),
    "tokens_per_s": float,
    "tokens_per_s_per_device": float,
    "model_tflops_per_device": float,
    "mfu": float,
    "hfu": float,
    "memory_bytes": {"weights", "gradients", "optimizer", "activations", "workspace", "runtime"},
    "memory_allocated_bytes": float,
    "memory_reserved_bytes": float,
    "memory_capacity_bytes": float,
    "traffic_bytes": {"tp", "pp", "dp", "cp", "ep"},
    "traffic_tier_bytes": set(),
    "flops_per_device": float,
    "energy_j": float,
    "cost_usd": float,
    "bottleneck": str,
    "calibration": str,
}
PLAN_KEYS = {"task", "candidates", "feasible", "elapsed_s", "rejected", "plans", "pareto"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HWSIM_PROFILES", raising=False)


@pytest.fixture
def answer(capsys):
    """Run a command that must succeed without a word on stderr; give its stdout."""

    def ask(*arguments):
        code = run([str(argument) for argument in arguments], debug=False)
        out, err = capsys.readouterr()
        assert code == 0, err
        assert err == ""
        return out

    return ask


SHOWN = {}


@pytest.fixture
def shown(answer):
    """What a command prints in a format; each is run once for all tests."""

    def ask(name, how):
        if (name, how) not in SHOWN:
            SHOWN[name, how] = answer(*COMMANDS[name], "--format", how)
        return SHOWN[name, how]

    return ask


def check_estimate(data):
    for key, kind in ESTIMATE_KEYS.items():
        assert key in data
        if isinstance(kind, set):
            assert kind <= set(data[key]), key
        else:
            assert isinstance(data[key], kind), key
    assert data["schema_version"] == 1
    assert data["kind"] == "training"
    strategy, devices, step = data["strategy"], data["hardware"]["devices"], data["step_time_s"]
    tokens = strategy["global_batch"] * strategy["seq_len"]
    assert strategy["tp"] * strategy["pp"] * strategy["cp"] * strategy["dp"] == devices
    assert sum(data["time_s"].values()) == pytest.approx(step)
    assert all(seconds >= 0 for seconds in data["time_s"].values())
    assert data["step_time_low_s"] < step < data["step_time_high_s"]
    assert data["tokens_per_s"] == pytest.approx(tokens / step)
    assert data["tokens_per_s_per_device"] == pytest.approx(tokens / step / devices)
    assert sum(data["memory_bytes"].values()) == pytest.approx(data["memory_allocated_bytes"])
    assert data["memory_allocated_bytes"] <= data["memory_reserved_bytes"]
    assert data["fits"] == (data["memory_reserved_bytes"] <= data["memory_capacity_bytes"])
    assert sum(data["traffic_bytes"].values()) == pytest.approx(sum(data["traffic_tier_bytes"].values()))
    assert 0 < data["mfu"] <= data["hfu"] < 1
    assert data["calibration"] in ("measured", "inherited", "datasheet")
    assert 10 < data["energy_j"] / step / devices < 5000, "watts a device"


@pytest.mark.parametrize("name", COMMANDS)
def test_table(answer, shown, name):
    out = answer(*COMMANDS[name])
    lines = out.splitlines()
    assert "\x1b" not in out, "no ANSI codes when not on a terminal"
    assert lines[0].strip(), "the first line says something"
    assert len(lines) > 3
    assert max(len(line) for line in lines) <= 120
    assert "…" not in out, "no column is clipped"
    assert not re.search(r"\d\.\d{6}", out), "no number with more digits than anyone reads"
    assert "nan" not in out.lower().split()
    assert shown(name, "table").splitlines()[0] == lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_json(answer, shown, name):
    out = answer(*COMMANDS[name], "--json")
    data = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert data["schema_version"] == 1
    assert out.endswith("}\n")
    assert list(json.loads(shown(name, "json"))) == list(data)


@pytest.mark.parametrize("name", COMMANDS)
def test_csv(shown, name):
    rows = list(csv.DictReader(io.StringIO(shown(name, "csv"))))
    assert rows
    assert all(None not in row and None not in row.values() for row in rows), "every row has every column"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("how", ["table", "json", "csv"])
def test_output_file(answer, shown, tmp_path, name, how):
    if name == "plan" and how == "json":
        pytest.skip("elapsed_s differs between two runs")
    expected = shown(name, how)
    path = tmp_path / "a b.txt"
    path.write_text("old\n", encoding="utf-8")
    assert answer(*COMMANDS[name], "--format", how, "-o", path) == ""
    written = path.read_text(encoding="utf-8")
    if name == "plan":
        expected, written = (re.sub(r"in [\d.]+ m?s,", "", text) for text in (expected, written))
    assert written == expected
    assert [item.name for item in tmp_path.iterdir()] == ["a b.txt"], "no temporary file is left"


def test_output_keeps_a_link_a_link(answer, tmp_path):
    (tmp_path / "link.json").symlink_to("target.json")
    (tmp_path / "target.json").write_text("old", encoding="utf-8")
    answer("models", "show", "gpt2", "--json", "-o", "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "target.json").read_text(encoding="utf-8"))["name"] == "gpt2"


def test_estimate_has_the_keys_of_the_contract_and_equals_python(answer):
    data = json.loads(answer(*TRAIN, "--json"))
    check_estimate(data)
    assert data == hwsim.estimate_training(**GPT3).to_dict()
    assert data["model"] == {"name": "gpt-3-175b", "parameters": 174604259328, "active_parameters": 174604259328}
    assert (data["hardware"]["accelerator"], data["hardware"]["devices"]) == ("a100-sxm-80", 64)
    wanted = {name: value for name, value in GPT3.items() if name not in ("model", "hardware", "gpus")}
    assert wanted.items() <= data["strategy"].items()
    assert data["strategy"]["schedule"] == "interleaved"


def test_every_flag_of_the_contract(answer):
    flags = "--tp 2 --pp 2 --vpp 2 --cp 2 --ep 1 --etp 1 --zero 1 --micro-batch 2 --global-batch 32 --seq-len 512"
    flags += " --recompute selective"
    flags += (
        " --no-sequence-parallel --schedule interleaved --attention flash --optimizer adam --no-graphs --precision fp16"
    )
    data = json.loads(answer(*GPT2, "--gpus", "16", "--framework", "megatron", *flags.split(), "--json"))
    check_estimate(data)
    strategy = {
        "tp": 2,
        "pp": 2,
        "vpp": 2,
        "cp": 2,
        "dp": 2,
        "zero": 1,
        "micro_batch": 2,
        "global_batch": 32,
        "seq_len": 512,
    }
    assert strategy.items() <= data["strategy"].items()
    assert (data["strategy"]["sequence_parallel"], data["strategy"]["precision"]) == (False, "fp16")


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zb-h1", "dualpipe"])
def test_every_schedule(answer, schedule):
    flags = ["--vpp", "2"] if schedule == "interleaved" else []
    machine = ["--gpus", "4", "--pp", "4", "--global-batch", "16"]
    data = json.loads(answer(*GPT2, *machine, "--schedule", schedule, *flags, "--json"))
    check_estimate(data)
    assert data["strategy"]["schedule"] == schedule


@pytest.mark.parametrize(
    ("model", "gpus", "more"),
    [
        ("gpt2", 1, []),
        ("gpt2", 12, []),
        ("gpt2", 97, []),
        ("gpt2", 7, ["--micro-batch", "3"]),
        ("70b", 8, []),
        ("70b", 640, ["--tp", "8"]),
    ],
)
def test_defaults_are_a_legal_strategy(capsys, model, gpus, more):
    code = run(["estimate", "train", "--model", model, "--gpus", str(gpus), *more, "--json"], debug=False)
    out, err = capsys.readouterr()
    assert code == 0, err
    check_estimate(json.loads(out))


@pytest.mark.parametrize("gpus", [12, 97])
def test_default_batch_has_a_plan(answer, gpus):
    best = json.loads(answer("plan", "--model", "gpt2", "--gpus", gpus, "--top", 1, "--json"))["plans"][0]
    assert best["hardware"]["devices"] == gpus
    assert 1 <= best["strategy"]["global_batch"] / 4096 < 1.25


def test_default_batch_is_the_usual_one_where_it_divides():
    estimate = hwsim.estimate_training("70b", "h100-sxm-80", 64, tp=8, pp=4)
    assert estimate.strategy["global_batch"] == 512
    frame = hwsim.estimate_training("gpt2", "h100-sxm-80", 12, tp=[1, 1, 2], micro_batch=[1, 5, 2])
    assert (frame["global_batch"] % (frame["dp"] * frame["micro_batch"]) == 0).all()


def test_strategy_that_does_not_fit_is_an_answer_with_a_warning(capsys):
    assert run(["estimate", "train", "--model", "405b", "--gpus", "8", "--json"], debug=False) == 0
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert data["fits"] is False
    assert data["memory_reserved_bytes"] > data["memory_capacity_bytes"]
    assert "warning" in err
    assert len(err.splitlines()) == 1


def test_plan_has_the_keys_of_the_contract(answer):
    data = json.loads(answer(*PLAN, "--top", "5", "--json"))
    assert set(data) >= PLAN_KEYS
    assert data["task"] == "train"
    assert 0 < data["feasible"] <= data["candidates"]
    assert sum(data["rejected"].values()) + data["feasible"] == data["candidates"]
    assert 0 < data["elapsed_s"] < 60
    assert 0 < len(data["plans"]) <= 5
    times = [plan["step_time_s"] for plan in data["plans"]]
    assert times == sorted(times)
    for plan in (*data["plans"], *data["pareto"]):
        check_estimate(plan)
        assert plan["fits"]


def test_plan_equals_its_estimate(answer):
    """What the planner promises, `estimate train` gives back."""
    best = json.loads(answer(*PLAN, "--top", "1", "--json"))["plans"][0]
    own = {"dp", "ep", "etp", "precision", "optimizer"}
    strategy = {name: value for name, value in best["strategy"].items() if name not in own}
    again = hwsim.estimate_training("gpt2", "a100-sxm-80", 8, **strategy).to_dict()
    assert again["step_time_s"] == pytest.approx(best["step_time_s"])
    assert again["memory_bytes"] == pytest.approx(best["memory_bytes"])


def test_plan_with_every_flag(answer, tmp_path):
    flags = "--task train --global-batch 64 --seq-len 1024 --precision bf16 --attention flash --optimizer adam --graphs"
    flags += " --framework megatron --objective cost --top 3 --pin tp=1,2 --pin recompute=none"
    flags += " --tokens 300B --target-days 3650"
    setting = ["--set", "accelerator.memory.bandwidth=4 TB/s", "--set", "model.layers=6"]
    data = json.loads(answer(*PLAN, *flags.split(), *setting, "--json"))
    assert len(data["plans"]) <= 3
    for plan in data["plans"]:
        check_estimate(plan)
        assert plan["strategy"]["tp"] in (1, 2)
        assert plan["strategy"]["recompute"] == "none"
        assert plan["strategy"]["global_batch"] == 64
        assert 300e9 / plan["tokens_per_s"] / 86400 <= 3650
    costs = [plan["cost_usd"] for plan in data["plans"]]
    assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("pin", "name", "allowed"), [("tp=2", "tp", {2}), ("zero=0,1", "zero", {0, 1}), ("shard=2", "shard", {2})]
)
def test_pin_is_kept(answer, pin, name, allowed):
    plans = json.loads(answer(*PLAN, "--pin", pin, "--json"))["plans"]
    assert {plan["strategy"][name] for plan in plans} <= allowed


def test_plan_prints_the_python_call_that_gives_the_same(answer):
    line = next(line for line in answer(*PLAN, "--pin", "tp=2").splitlines() if "hwsim.plan(" in line)
    call = line[line.index("hwsim.plan(") :]
    assert eval(call, {"hwsim": hwsim}).best.strategy["tp"] == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [(15e12, "15e12"), (1.5e9, "1.5e9"), (3.0, "3.0"), (1 / 3, repr(1 / 3)), (1e9 / 3, repr(1e9 / 3))],
)
def test_numbers_of_the_python_call(value, shown):
    assert python_call({"tokens": value}) == f"hwsim.plan(tokens={shown})"
    assert len(python_call({"pin": ["tp=1," * 10_000]})) < 300


def test_plan_with_a_token_budget_says_days_and_cost(answer):
    out = answer(*PLAN, "--tokens", "15T")
    assert "15T tokens in" in out
    assert "days" in out
    assert "USD" in out


@pytest.mark.parametrize(
    "setting",
    [
        "model.layers=6",
        "accelerator.memory.bandwidth=1 TB/s",
        "cluster.tiers.nvlink.bandwidth=100 GB/s",
        "job.precision=fp32",
    ],
)
def test_setting_changes_the_answer(answer, setting):
    """--set overrides any field of model, hardware or job."""
    command = ["estimate", "train", "--model", "gpt2", "--gpus", "8", "--tp", "2", "--json"]
    plain, changed = json.loads(answer(*command)), json.loads(answer(*command, "--set", setting))
    assert plain["step_time_s"] != changed["step_time_s"]


def test_job_settings_are_checked_like_those_of_files(capsys):
    for setting, said in {"sequence=3": "did you mean seq_len", "precision=fp3": "did you mean fp32"}.items():
        assert run([*GPT2, "--set", f"job.{setting}"], debug=False) == 3
        err = capsys.readouterr().err
        assert "--set job." in err
        assert said in err
    assert run([*GPT2, "--set", "job.seq_len=512", "--seq-len", "256"], debug=False) == 2
    assert "twice" in capsys.readouterr().err


def test_dash_is_stdout(answer):
    assert answer("models", "show", "gpt2", "--json", "-o", "-") == answer("models", "show", "gpt2", "--json")


def test_models_show(answer):
    data = json.loads(answer("models", "show", "70b", "--json"))
    assert {"name", "parameters", "active_parameters", "non_embedding_parameters", "layers"} <= set(data)
    assert (data["name"], data["parameters"], data["layers"]) == ("llama-3-70b", 70553706496, 80)


def test_models_show_and_check_a_config_and_its_folder(answer, tmp_path):
    fields = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({**fields, "vocab_size": 100, "intermediate_size": 128}), encoding="utf-8"
    )
    by_file, by_folder = (
        json.loads(answer("models", "show", path, "--json")) for path in (folder / "config.json", folder)
    )
    assert by_file["parameters"] == by_folder["parameters"] == 95_040
    assert by_file["name"] == by_folder["name"] == "mine"
    assert answer("models", "check", folder).endswith("ok (95,040 parameters)\n")


def test_a_byte_order_mark_is_no_error(answer, tmp_path):
    model = b"\xef\xbb\xbfname: mine\nlayers: 2\nhidden: 64\nheads: 4\n"
    (tmp_path / "mine.yaml").write_bytes(model)
    assert "ok" in answer("models", "check", "mine.yaml")
    fields = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    text = json.dumps({**fields, "vocab_size": 100, "intermediate_size": 128})
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert "ok" in answer("models", "check", "config.json")


def test_hardware_list_and_show_say_units_and_sources(answer):
    rows = json.loads(answer("hardware", "list", "--json"))["hardware"]
    h100 = next(row for row in rows if row["name"] == "h100-sxm-80")
    assert h100["memory_bytes"] == 80 * 2**30
    assert h100["bandwidth_bytes_per_s"] == pytest.approx(3.35e12)
    values = json.loads(answer("hardware", "show", "h100-sxm-80", "--json"))["values"]
    memory = next(row for row in values if row["field"] == "accelerator.memory.bandwidth")
    assert memory["value"] == pytest.approx(3.35e12)
    assert memory["unit"] == "bytes_per_s"
    assert all(row["kind"] for row in values)
    assert "3.35 TB/s" in answer("hardware", "show", "h100-sxm-80")


@pytest.mark.parametrize("name", ["h100-sxm-80", "dgx-h100", "H100-SXM-80"])
def test_hardware_check(answer, name):
    assert answer("hardware", "check", name) == f"{name}: ok (accelerator h100-sxm-80 in cluster dgx-h100)\n"


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("models check gpt2", {"name": "gpt2", "parameters": 124439808}),
        ("hardware check dgx-h100", {"accelerator": "h100-sxm-80", "cluster": "dgx-h100"}),
    ],
)
def test_checks_in_every_format(answer, tmp_path, command, found):
    wanted = {"path": command.split()[-1], "ok": True, **found}
    data = json.loads(answer(*command.split(), "--json"))
    assert wanted.items() <= data.items()
    assert data["schema_version"] == 1
    row = next(csv.DictReader(io.StringIO(answer(*command.split(), "--format", "csv"))))
    assert {name: str(value) for name, value in wanted.items()}.items() <= row.items()
    assert answer(*command.split(), "--json", "-o", "found.json") == ""
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8")) == data


def test_a_check_prints_the_path_as_it_is(answer, tmp_path):
    path = tmp_path / f"[red]{'long' * 40}.yaml"
    path.write_text("extends: h100-sxm-80\n", encoding="utf-8")
    assert answer("hardware", "check", path).startswith(f"{path}: ok (")


def test_profile_that_extends_another(answer, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "extends: h100-sxm-80\nname: mine\nmemory: {bandwidth: 1 TB/s}\n", encoding="utf-8"
    )
    command = ["estimate", "train", "--model", "gpt2", "--gpus", "8", "--json", "--hardware"]
    slow, fast = (json.loads(answer(*command, name)) for name in ("mine.yaml", "h100-sxm-80"))
    assert slow["hardware"]["accelerator"] == "mine"
    assert slow["step_time_s"] > fast["step_time_s"]
    assert slow["memory_capacity_bytes"] == fast["memory_capacity_bytes"]


def test_explain_rows_have_units_in_their_keys(answer):
    rows = json.loads(answer(*COMMANDS["explain"], "--json"))["rows"]
    assert {
        "block",
        "operator",
        "phase",
        "flops",
        "memory_bytes",
        "wire_bytes",
        "time_s",
        "bound",
        "limit_fraction",
    } <= set(rows[0])
    assert all(0 <= row["limit_fraction"] <= 1.05 and row["time_s"] >= 0 for row in rows)


def test_version(answer):
    assert answer("--version") == f"hwsim {hwsim.__version__}\n"


@pytest.mark.parametrize(
    "command", ["", "plan", "estimate", "estimate train", "explain", "models show", "hardware check"]
)
def test_help(answer, command):
    out = answer(*command.split(), "--help")
    assert "Usage" in out
    assert answer(*command.split(), "-h") == out


def test_completion_of_names():
    from hwsim.cli import options

    models = options.complete_models("llama-3")
    assert "llama-3-70b" in models
    assert all(name.startswith("llama-3") for name in models)
    assert options.complete_models("LLAMA-3-70") == options.complete_models("llama-3-70")
    assert {"h100-sxm-80", "dgx-h100"} <= set(options.complete_hardware(""))
    assert options.complete_hardware("nothing-like-this") == []


@pytest.mark.skipif(not HWSIM.exists(), reason="hwsim is not installed as a command")
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        {"COLUMNS": "40"},
        {"NO_COLOR": "1"},
        {"FORCE_COLOR": "1"},
    ],
)
def test_process_prints_plain_text(environment):
    command = [str(HWSIM), "estimate", "train", "--model", "gpt2", "--gpus", "8"]
    done = subprocess.run(command, capture_output=True, timeout=20, check=True, env={**os.environ, **environment})
    text = done.stdout.decode("ascii" if "LC_ALL" in environment else "utf-8")
    assert done.stderr == b""
    assert "\x1b" not in text
    assert "tokens/s" in text
    assert "?" not in text, "what ASCII lacks is spelt out, not lost"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
def test_narrow_terminal_clips_no_column():
    reader, writer = os.openpty()
    command = [sys.executable, "-m", "hwsim", "hardware", "list"]
    with subprocess.Popen(command, stdout=writer, env={**os.environ, "COLUMNS": "60", "TERM": "xterm"}) as process:
        os.close(writer)
        text = b""
        while chunk := _read(reader):
            text += chunk
    os.close(reader)
    assert process.returncode == 0
    assert b"\x1b[1m" in text
    assert "…" not in text.decode()
    assert all(name in text.decode() for name in ("year", "network", "2022"))


def _read(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how Linux says that the other end is closed
        return b""


@pytest.mark.skipif(not HWSIM.exists(), reason="hwsim is not installed as a command")
def test_shell_completion():
    environment = {
        **os.environ,
        "_HWSIM_COMPLETE": "complete_bash",
        "COMP_WORDS": "hwsim plan --model gpt-3-17",
        "COMP_CWORD": "3",
    }
    done = subprocess.run([str(HWSIM)], capture_output=True, text=True, timeout=20, check=False, env=environment)
    assert done.stdout.split() == ["gpt-3-175b"]


def test_devices_are_written_in_place(monkeypatch):
    """Nobody but root may make files beside /dev/null, nor has to."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    check_targets({"--plot": None, "-o": "/dev/null"})
    with pytest.raises(UsageError, match="no folder there that can be written"):
        check_targets({"-o": "x.json"})
