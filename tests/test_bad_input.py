"""Bad input: one clear message on stderr, the documented exit code, nothing on stdout, no traceback, no hang."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.cli.app import run
from hwsim.errors import HwsimError

ROOT = Path(__file__).parents[1]
PROFILES = ROOT / "hardware_profiles"
HWSIM = Path(sys.executable).parent / "hwsim"
H100 = (PROFILES / "accelerators" / "h100-sxm-80.yaml").read_text(encoding="utf-8")
DGX = (PROFILES / "clusters" / "dgx-h100.yaml").read_text(encoding="utf-8")
LONG = "x" * 1_000_000
LIMIT_S = 20
LIMIT_CHARACTERS = 2000

T = "estimate train --hardware a100-sxm-80 --model gpt2"
P = "plan --hardware a100-sxm-80 --model gpt2"
PLAN = "plan --hardware a100-sxm-80 --model"
M = "models check"
H = "hardware check"
V = "validate published"


def changed(text, old, new):
    """A profile with one thing wrong; the old text must be there."""
    assert old in text, f"the profile no longer holds {old!r}: update this test"
    return text.replace(old, new, 1)


MODEL = "name: mine\nlayers: 4\nhidden: 256\nheads: 4\n"
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "intermediate_size": 128,
}


def config(**fields):
    return json.dumps({**CONFIG, **fields})


FILES = {
    # models
    "empty.yaml": "",
    "list.yaml": "- 1\n",
    "scalar.yaml": "hello",
    "utf16.yaml": MODEL.encode("utf-16"),
    "latin.yaml": b"title: caf\xe9\n" + MODEL.encode(),
    "binary.yaml": bytes(range(256)) * 50,
    "nul.yaml": MODEL + "title: a\0b\n",
    "tab.yaml": "layers:\t4\n\thidden: 3\n",
    "colon.yaml": "layers 4\nhidden: 2\n",
    "unclosed.yaml": "layers: [4\nhidden: 256\n",
    "missing.yaml": "name: x\n",
    "typo.yaml": MODEL + "vocabb: 3\n",
    "negative.yaml": MODEL + "vocab: -4\n",
    "zero.yaml": MODEL + "vocab: 0\n",
    "nan.yaml": MODEL + "vocab: .nan\n",
    "inf.yaml": MODEL + "vocab: .inf\n",
    "1e300.yaml": MODEL + "vocab: 1e300\n",
    "digits.yaml": MODEL + f"vocab: {'9' * 5000}\n",
    "float.yaml": MODEL + "vocab: 4.5\n",
    "text.yaml": MODEL + "vocab: many\n",
    "listed.yaml": MODEL + "vocab: [1, 2]\n",
    "mapped.yaml": MODEL + "vocab: {a: 1}\n",
    "null.yaml": MODEL + "vocab:\n",
    "flag.yaml": MODEL + "gated: maybe\n",
    "flagged.yaml": MODEL + "vocab: true\n",
    "choice.yaml": MODEL + "norm: rmsnrm\n",
    "kv.yaml": MODEL + "kv_heads: 3\n",
    "width.yaml": "layers: 4\nheads: 4\nhidden: 250\n",
    "twice.yaml": MODEL + "layers: 5\n",
    "python.yaml": MODEL + "title: !!python/object/apply:os.system ['true']\n",
    "tag.yaml": MODEL + "title: !foo bar\n",
    "root_tag.yaml": "!foo\n" + MODEL,
    "anchor.yaml": MODEL + "title: &a x\nsource: *a\n",
    "bomb.yaml": "a: &a [x,x,x,x]\n"
    + "".join(f"{b}: &{b} [*{a},*{a},*{a}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    "deep.yaml": "a: " + "[" * 100_000,
    "deeper.yaml": "a: " + "{a: " * 3000 + "}" * 3000,
    "two.yaml": MODEL + "---\n" + MODEL,
    "list_key.yaml": MODEL + "? [a, b]\n: 3\n",
    "number_key.yaml": MODEL + "3: 4\n",
    "long_value.yaml": MODEL + f"norm: {LONG[:500_000]}\n",
    "long_title.yaml": MODEL + f"title: {LONG[:500_000]}\n",
    "many.yaml": MODEL + "".join(f"unknown{i}: 1\n" for i in range(5000)),
    "many_twice.yaml": MODEL + "layers: 3\n" * 5000,
    "name.yaml": changed(MODEL, "mine", "../x"),
    "ansi.yaml": 'name: "\\e[31mred"\nlayers: 4\nhidden: 256\nheads: 4\n',
    "self.yaml": "extends: self\n",
    "self_path.yaml": "extends: ./self_path.yaml\n",
    "parent.yaml": "# x\nextends: gpt9\n",
    "parents.yaml": "extends: [gpt2]\n",
    "child.yaml": "extends: gpt2\nlayers: foo\n",
    "window.yaml": MODEL + "window: 0\n",
    "moe.yaml": MODEL + "experts: -8\n",
    "big.yaml": "a: " + "x" * 2**20,
    # Hugging Face configs
    "empty.json": "",
    "list.json": "[]",
    "cut.json": json.dumps(CONFIG, indent=1)[:-9],
    "nan.json": config(x=math.nan),
    "inf.json": config(x=math.inf),
    "1e999.json": config()[:-1] + ',"x":1e999}',
    "twice.json": config()[:-1] + ',"vocab_size":3}',
    "deep.json": '{"a":' + "[" * 100_000,
    "digits.json": config()[:-1] + f',"x":{"9" * 10_000}}}',
    "utf16.json": config().encode("utf-16"),
    "many.json": config()[:-1] + "".join(f',"k{i % 5000}":1' for i in range(10_000)) + "}",
    "negative.json": config(num_hidden_layers=-1),
    "zero.json": config(hidden_size=0),
    "text.json": config(hidden_size="64"),
    "float.json": config(hidden_size=64.5),
    "flag.json": config(hidden_size=True),
    "null.json": config(hidden_size=None),
    "listed.json": config(hidden_size=[1]),
    "huge.json": config(hidden_size=10**18),
    "missing.json": '{"model_type": "llama"}',
    "no_type.json": "{}",
    "type.json": config(model_type="lama"),
    "number_type.json": config(model_type=3),
    "long_type.json": config(model_type=LONG[:900_000]),
    "ansi.json": config(model_type="\x1b[31m"),
    "moe.json": config(model_type="dbrx"),
    "bert.json": config(model_type="electra"),
    "kv.json": config(num_key_value_heads=3),
    "width.json": config(num_attention_heads=5),
    "tied.json": config(tie_word_embeddings="yes"),
    # accelerators
    "h_unit.yaml": changed(H100, "3350 GB/s", "3350 GiB"),
    "h_bare.yaml": changed(H100, "3350 GB/s", "3350"),
    "h_negative.yaml": changed(H100, "3350 GB/s", "-3350 GB/s"),
    "h_zero.yaml": changed(H100, "3350 GB/s", "0 GB/s"),
    "h_nan.yaml": changed(H100, "3350 GB/s", "nan GB/s"),
    "h_inf.yaml": changed(H100, "3350 GB/s", "1e999 GB/s"),
    "h_capacity.yaml": changed(H100, "capacity: 80 GiB", "capacity: 0 GiB"),
    "h_byte.yaml": changed(H100, "capacity: 80 GiB", "capacity: 1 B"),
    "h_visible.yaml": changed(H100, "visible: 79.6 GiB", "visible: 200 GiB"),
    "h_unseen.yaml": changed(H100, "visible: 79.6 GiB", "visible: 0 B"),
    "h_efficiency.yaml": changed(H100, "    efficiency: 0.825", "    efficiency: 77"),
    "h_latency.yaml": changed(H100, "latency: 2.3 us", "latency: -2 us"),
    "h_typo.yaml": changed(H100, "  bf16: ", "  bf61: "),
    "h_peak.yaml": changed(H100, "bf16: 989.4 TFLOP/s", "bf16: 0 TFLOP/s"),
    "h_lower.yaml": changed(H100, "bf16: 989.4 TFLOP/s", "bf16: 989.4 tflop/s"),
    "h_no_peak.yaml": H100.replace("peak:", "peek:"),
    "h_peakless.yaml": re.sub(r"peak:\n(  \w+: .*OP/s\n)+", "peak: {}\n", H100),
    "h_tdp.yaml": changed(H100, "tdp: 700 W", "tdp: 700"),
    "h_idle.yaml": changed(H100, "idle: 70 W", "idle: 7000 W"),
    "h_rent.yaml": changed(H100, "rent: 2.95 USD/h", "rent: -6 USD/h"),
    "h_euro.yaml": changed(H100, "30000 USD", "30000 EUR"),
    "h_units.yaml": changed(H100, "compute_units: 132", "compute_units: 0"),
    "h_cluster.yaml": changed(H100, "usual_cluster: dgx-h100", "usual_cluster: dgx-h999"),
    "h_wrong.yaml": changed(H100, "usual_cluster: dgx-h100", "usual_cluster: a100-sxm-80"),
    "h_alone.yaml": changed(H100, "usual_cluster: dgx-h100\n", ""),
    "h_framework.yaml": changed(H100, "year: 2022", "usual_framework: nope"),
    "h_memory.yaml": re.sub(r"memory: \{.*\}", "memory: [1, 2]", H100),
    "h_self.yaml": "extends: h_self\n",
    "h_parent.yaml": "extends: h100-sxm-8\n",
    "h_child.yaml": "extends: h100-sxm-80\nname: x\nmemory: {bandwith: 4 TB/s}\n",
    # clusters
    "c_nodes.yaml": changed(DGX, "devices: 8", "devices: 0"),
    "c_grow.yaml": changed(DGX, "size: 8\n", "size: 300\n"),
    "c_multiple.yaml": changed(DGX, "size: 256", "size: 12"),
    "c_bandwidth.yaml": changed(DGX, "    bandwidth: 450 GB/s\n", ""),
    "c_no_tiers.yaml": DGX[: DGX.index("tiers:")] + "tiers: []\n" + DGX[DGX.index("confidence:") :],
    "c_device.yaml": changed(DGX, "accelerator: h100-sxm-80", "accelerator: nope"),
    "c_itself.yaml": changed(DGX, "accelerator: h100-sxm-80", "accelerator: dgx-h100"),
    "c_nothing.yaml": changed(DGX, "accelerator: h100-sxm-80", "accelerator:"),
    "c_inline.yaml": changed(
        DGX, "accelerator: h100-sxm-80", "accelerator: {extends: h100-sxm-80, name: x, memory: {bandwith: 3 TB/s}}"
    ),
    "c_algorithm.yaml": changed(DGX, "algorithm: switch", "algorithm: swich"),
    "c_collective.yaml": changed(DGX, "all_reduce:", "all_redcue:"),
    "c_torus.yaml": changed(DGX, "kind: switch", "kind: torus"),
    "c_empty.yaml": re.sub(r"all_to_all: \[.*\]", "all_to_all: []", DGX),
    "c_share.yaml": changed(DGX, "latency: 0.94 us", "latency: 0.94 us\n    oversubscription: 0.5"),
    "c_small.yaml": DGX[: DGX.index("  - name: rail")] + DGX[DGX.index("confidence:") :],
    # clusters that extend another
    "c_edges.yaml": "extends: tpu-v5p-pod\nname: mine\ntiers: {ici: {torus: [16, 16, 28]}}\n",
    "c_size.yaml": "extends: tpu-v5p-pod\nname: mine\ntiers: {ici: {size: 4096}}\n",
    "c_edge.yaml": "extends: tpu-v5p-pod\nname: mine\ntiers: {ici: {torus: [16, 0, 28]}}\n",
    "c_own.yaml": re.sub(r"own_share: 0\.\d+", "own_share: -50", DGX, count=1),
    "c_list.yaml": "extends: dgx-h100\nname: mine\ntiers:\n  - name: nvlink\n    bandwidth: 900 GB/s\n",
    # output
    "keep.json": "keep\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of broken files, devices and dead ends."""
    path = tmp_path_factory.mktemp("bad")
    for name, text in FILES.items():
        (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (path / "folder.yaml").mkdir()
    (path / "empty").mkdir()
    (path / "inner" / "config.json").mkdir(parents=True)
    (path / "loop.yaml").symlink_to("loop.yaml")
    (path / "zero_device.json").symlink_to("/dev/zero")
    os.mkfifo(path / "fifo.yaml")
    os.mkfifo(path / "fifo.json")
    with (path / "large.json").open("wb") as file:
        file.truncate(100 * 2**20)
    broken = path / "profiles" / "accelerators"
    broken.mkdir(parents=True)
    (broken / "h100-sxm-80.yaml").write_text(FILES["h_unit.yaml"], encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _in_folder(folder, monkeypatch):
    """Work in that folder, with an alarm clock."""

    def ring(*_):
        pytest.fail(f"took more than {LIMIT_S} s")

    monkeypatch.chdir(folder)
    monkeypatch.delenv("HWSIM_PROFILES", raising=False)
    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def arguments(command):
    return command.split() if isinstance(command, str) else [*command[0].split(), *command[1:]]


def simple(text):
    """Text for comparison: flags and fields are spelt with dashes or underscores."""
    return text.lower().replace("_", "-")


def check(capsys, command, code, fragments):
    """Run a command that must fail properly."""
    result = run(arguments(command), debug=False)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "a bug in hwsim" not in err
    assert result == code, err
    assert out == ""
    assert err.startswith("hwsim: "), "one message, from hwsim"
    assert len(err) < LIMIT_CHARACTERS
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", err), "control characters reach the terminal"
    assert not re.search(r"NoneType|valid (dictionary|tuple)|instance of|permitted|after validation", err), (
        "jargon of a library"
    )
    for fragment in fragments:
        assert simple(fragment) in simple(err)
    return err


USAGE = [
    ("foo", "foo"),
    ("plam --model 70b", "plam", "plan"),
    ("plan", "--model"),
    ("plan --modle 70b", "--modle", "--model"),
    ("plan --model", "--model"),
    ("plan --model gpt2 --gpus", "--gpus"),
    ("models shw", "shw", "show"),
    ("models show", "name"),
    ("models show gpt2 more", "more"),
    ("hardware check", "path"),
    ("models list --gpus 3", "--gpus"),
    ("-V", "-V"),
    ("explain --model gpt2 --recompute full", "--recompute (hwsim explain takes --model, ", "--attention"),
    ("plan --model gpt2 --batch 3", "--batch - did you mean --global-batch?"),
    ("estimate infer --model 70b --tp 3", "tp", "must divide"),
    ("estimate infer --model 70b --weights int3", "weights", "none of"),
    ("estimate infer --model 70b --batch 0", "batch", "1"),
    ("estimate infer --model llama-3-8b --images 2", "images", "no vision tower"),
    ("simulate serving --model llama-3-8b", "qps", "give one of"),
    ("simulate serving --model llama-3-8b --qps 1 --requests 0", "requests", "1"),
    ("simulate serving --model llama-3-8b --qps 1 --plot x.txt", "--plot", ".png"),
    ("finetune", "finetune"),
    (f"{P} --task infer --tokens 15T", "tokens", "is for training"),
    (f"{P} --qps 5", "qps", "needs --task infer"),
    (f"{P} --task infer --qps -1", "qps", "positive"),
    (f"{P} --task infer --ttft-ms nan", "ttft_ms", "positive"),
    (f"{P} --task trian", "trian", "train"),
    (f"{T} --ep 2", "--ep", "no experts"),
    (f"{T} --source-len 64", "source_len", "gpt2 has no encoder"),
    (f"{T} --images 2", "images", "no vision tower"),
    (f"{T} --capacity 1.5", "capacity", "no experts"),
    (f"{T} --imbalance 0.5", "imbalance", "1"),
    (f"{T} --rank 8", "rank", "lora"),
    (f"{T} --method loar", "method", "loar", "lora"),
    (f"{T} --frozen vision", "frozen", "no vision"),
    (f"{T} --frozen tower", "frozen", "tower", "vision"),
    (f"{T} --offload disk", "offload", "disk", "optimizer"),
    (f"{P} --tokens optimum", "--tokens", "optimum"),
    (f"{T} --sequence-parallel=maybe", "--sequence-parallel"),
    (f"{T} --json --format csv", "--json", "csv"),
    # names
    (f"{PLAN} lama-3-70b", "model", "lama-3-70b", "llama-3-70b"),
    ((PLAN, ""), "model"),
    ((PLAN, "\0"), "\\x00"),
    ((PLAN, "x" * 300), "model"),
    ((PLAN, LONG), "xxx"),
    ((P, "--hardware", ""), "hardware"),
    (f"{P} --hardware nope", "hardware", "nope", "hwsim hardware list"),
    (f"{P} --hardware a100", "a100", "a100-sxm-80"),
    (f"{P} --hardware h100", "h100", "h100-sxm-80"),
    (f"{P} --hardware gpt2", "gpt2"),
    ((P, "--hardware", LONG), "xxx"),
    ((P, "--hardware", "h" * 300), "hhh"),
    (f"{P} --framework nope", "framework", "nope", "megatron"),
    ((P, "--framework", LONG), "framework"),
    (f"{P} --profiles nowhere", "nowhere", "does not exist"),
    (f"{P} --profiles keep.json", "keep.json", "not a folder"),
    (f"{P} --profiles empty", "empty", "accelerators"),
    ((P, "--profiles", LONG), "profile"),
    ((P, "--profiles", "a\0b"), "profile"),
    (f"{M} nope", "nope"),
    (f"{H} nope", "nope"),
    ("models show nope", "nope"),
    ("hardware show nope", "nope"),
    # choices
    (f"{P} --format xml", "--format", "xml", "json"),
    ((P, "--format", LONG), "--format"),
    (f"{T} --recompute ful", "recompute", "ful", "full"),
    (f"{T} --recompute full,mlp", "'full,mlp': full stands alone", "a list names modules only", "core_attn"),
    (f"{T} --recompute selective,full", "selective stands alone", "a list names modules only"),
    (f"{P} --pin recompute=mlp", "--pin recompute='mlp'", "estimate train --recompute"),
    (f"{T} --schedule 1f2b", "schedule", "1f2b", "1f1b"),
    (f"{T} --order tp-pp", "order", "tp-pp", "tp-cp-dp-pp"),
    (f"{P} --objective thruput", "objective", "throughput"),
    (f"{P} --precision bf61", "precision", "bf61", "bf16"),
    (f"{P} --attention flsh", "attention", "flsh", "flash"),
    (f"{P} --optimizer sdg", "optimizer", "sdg", "sgd"),
    (f"{P} --precision fp4", "fp4"),
    (f"{P} --precision fp8", "fp8", "a100-sxm-80", "bf16"),
    (f"{P} --hardware v100-sxm2-16 --precision bf16", "bf16", "fp16"),
    # amounts
    (f"{P} --gpus 1000000000", "gpus", "10,000,000"),
    (f"{P} --task infer --gpus 0", "gpus", "10,000,000"),
    *(
        (f"{command} --model gpt2 --task infer --qps 2 --percentile 0", "percentile", "1 to 99")
        for command in ("plan", "sensitivity", "size")
    ),
    (f"{P} --top 100000", "top", "1,000"),
    (f"{P} --seq-len 1000000000", "seq_len", "100,000,000"),
    (f"{P} --global-batch 100000000", "global_batch", "10,000,000"),
    *((f"{P} --tokens {text}", "tokens") for text in ("abc", "0", "nan", "inf", "1e300", "15X", "15GiB", "=8", "-1")),
    ((P, "--tokens", ""), "tokens"),
    ((P, "--tokens", LONG), "tokens"),
    *(
        (f"{P} --tokens 1T --target-days {text}", "target-days")
        for text in ("abc", "0", "nan", "inf", "1e300", "-1", "3d")
    ),
    *(
        (f"{P} --target-tokens-per-s {text}", "target-tokens-per-s")
        for text in ("abc", "0", "nan", "inf", "1e300", "-1")
    ),
    (f"{P} --target-days 3", "target_days", "tokens"),
    (f"{P} --tokens 1T --target-days 3 --target-tokens-per-s 5", "target_days", "target_tokens_per_s"),
    # pins
    *((f"{P} --pin {text}", "--pin", "NAME=VALUE") for text in ("tp", "=8", "nope=3", "global_batch=8")),
    *(
        (f"{P} --pin {text}", "--pin", text[:2])
        for text in ("tp=", "tp=0", "tp=-1", "tp=1.5", "tp=8,", "tp==8", "tp=٣", "zero=4")
    ),
    (f"{P} --pin recompute=ful", "--pin recompute", "full"),
    (f"{P} --pin TP=8", "TP", "did you mean tp"),
    ((P, "--pin", LONG), "--pin"),
    (f"{P} --pin tp=8 --pin tp=4", "--pin", "tp"),
    # settings
    *(
        ((f"{T} --set", text), "--set", "path=value")
        for text in ("", "x", "accelerator=3", "accelerator.=3", ".=", LONG)
    ),
    (f"{T} --set framework=nemo", "path=value", "--framework nemo"),
    (f"{T} --set model=70b", "path=value", "--model 70b"),
    (f"{T} --set cluster=dgx-h100", "path=value", "--hardware dgx-h100"),
    ((f"{T} --set", "tiers.nvlink.bandwidth=1 TB/s"), "did you mean cluster.tiers?"),
    (f"{T} --set precision.x=fp8", "did you mean job.precision?"),
    (f"{T} --set acelerator.memory.bandwidth=4TB/s", "--set", "acelerator", "accelerator"),
    # strategies
    (f"{T} --tp 8", "tp", "heads", "12"),
    (f"{T} --tp 3", "tp", "8"),
    (f"{T} --pp 7", "pp", "8"),
    (f"{T} --global-batch 10", "10", "dp x micro-batch", "8"),
    (f"{T} --gpus 16 --pp 16", "layers", "12"),
    (f"{T} --vpp 2", "vpp", "pp > 1"),
    (f"{T} --pp 2 --vpp 2 --schedule 1f1b", "vpp", "interleaved"),
    (f"{T} --pp 2 --schedule interleaved", "interleaved", "vpp"),
    (f"{T} --pp 2 --vpp 2 --schedule gpipe", "vpp", "interleaved"),
    (f"{T} --schedule dualpipe", "dualpipe", "pp"),
    (f"{T} --micro-batch 3 --global-batch 64", "micro-batch", "global batch", "24"),
    (f"{T} --shard 3", "shard", "8"),
    (f"{T} --cp 3 --gpus 3", "cp", "sequence"),
    (f"{T} --global-batch 7", "global batch", "7"),
    (f"{T} --hardware c_small.yaml --gpus 16", "8", "16"),
    # output
    (f"{T} --json -o empty", "-o", "empty", "folder"),
    (f"{T} --json -o nowhere/x.json", "-o", "nowhere/x.json"),
    ((f"{T} --json -o", ""), "-o"),
    ((f"{T} --json -o", "x" * 300), "-o", "too long"),
    ((f"{T} --json -o", LONG), "-o"),
    ((f"{T} --json -o", "a\0b"), "-o"),
    (f"{T} --json -o keep.json/x", "-o", "keep.json/x"),
    (f"{T} --json -o /dev/full", "-o", "space"),
    (f"{T} --json -o /proc/x.json", "-o", "/proc/x.json"),
    # validation and fits
    (f"{V} --group nosuch", "--group: no group or source holds 'nosuch' (groups: BLOOM", "PyTorch FSDP"),
    (f"{V} --group korthikant2022", "did you mean korthikanti2022?"),
    ((V, "--group", ""), "--group"),
    *((f"{V} --plot {name}", "--plot needs .png, .svg or .pdf", name) for name in ("noext", "x.jpg", ".png")),
    *(((V, flag, ""), f"{flag}: no file name given") for flag in ("--plot", "--write-bands")),
    *(((V, flag, "a\0b.png"), flag, "no file name") for flag in ("--plot", "--write-bands", "-o")),
    (f"{V} --plot x.png -o ./x.png", "-o './x.png': --plot writes that file too"),
    (f"{V} --write-bands x -o empty/../x", "-o 'empty/../x': --write-bands writes that file too"),
    (f"{V} --write-bands nowhere/x", "--write-bands 'nowhere/x': no folder"),
    ((V, "--write-bands", "x", "--group", ""), "leave out --group"),
    (("fit", ""), "DIR: no folder given"),
    (("fit", "empty", "--record", ""), "--record: no file name given"),
    ("fit empty --record x.csv --json -o x.csv", "-o 'x.csv': --record writes that file too"),
]

COUNTS = ("tp", "pp", "vpp", "cp", "ep", "etp", "shard", "micro-batch", "global-batch", "seq-len", "gpus")
USAGE += [
    ((T, f"--{flag}={text}"), flag)
    for flag in (*COUNTS, "zero")
    for text in ("", "abc", "1.5", "nan", "1e300", "-1", "9" * 30, "2 GiB")
]
USAGE += [(f"{T} --{flag}=0", flag) for flag in COUNTS]
USAGE += [(f"{P} --top={text}", "top") for text in ("0", "-1", "abc", "1.5")]

MISSING = "No such file"
BAD_FILES = [
    # models: file:line, field, range or choice, nearest fix
    (f"{M} empty.yaml", "empty.yaml", "empty"),
    (f"{M} list.yaml", "list.yaml", "fields"),
    (f"{M} scalar.yaml", "scalar.yaml", "fields"),
    (f"{M} utf16.yaml", "utf16.yaml: ", "UTF-8"),
    (f"{M} latin.yaml", "latin.yaml: ", "UTF-8"),
    (f"{M} binary.yaml", "binary.yaml: ", "UTF-8"),
    (f"{M} nul.yaml", "nul.yaml", "not valid YAML"),
    (f"{M} tab.yaml", "tab.yaml:1", "YAML"),
    (f"{M} colon.yaml", "colon.yaml:2", "YAML"),
    (f"{M} unclosed.yaml", "unclosed.yaml:2", "YAML"),
    (f"{M} missing.yaml", "missing.yaml", "layers: missing", "hidden: missing"),
    (f"{M} typo.yaml", "typo.yaml:5", "vocabb", "did you mean vocab"),
    *(
        (f"{M} {name}.yaml", f"{name}.yaml:5", "vocab")
        for name in (
            "negative",
            "zero",
            "nan",
            "inf",
            "1e300",
            "digits",
            "float",
            "text",
            "listed",
            "mapped",
            "null",
            "flagged",
        )
    ),
    (f"{M} flag.yaml", "flag.yaml:5", "gated", "true", "maybe"),
    (f"{M} choice.yaml", "choice.yaml:5", "norm", "rmsnorm", "rmsnrm"),
    (f"{M} kv.yaml", "kv.yaml", "kv_heads 3", "heads 4"),
    (f"{M} width.yaml", "width.yaml", "250", "4", "head_dim"),
    (f"{M} twice.yaml", "twice.yaml:5", "duplicate key", "layers"),
    (f"{M} python.yaml", "python.yaml:5", "tag"),
    (f"{M} tag.yaml", "tag.yaml:5", "tag"),
    (f"{M} root_tag.yaml", "root_tag.yaml:1", "tag"),
    (f"{M} anchor.yaml", "anchor.yaml:5", "anchor"),
    (f"{M} bomb.yaml", "bomb.yaml:1", "anchor"),
    (f"{M} deep.yaml", "deep.yaml:1", "nested"),
    (f"{M} deeper.yaml", "deeper.yaml:1", "nested"),
    (f"{M} two.yaml", "two.yaml:5", "more than one"),
    (f"{M} list_key.yaml", "list_key.yaml:5"),
    (f"{M} number_key.yaml", "number_key.yaml:5", "3"),
    (f"{M} long_value.yaml", "long_value.yaml:5", "norm"),
    (f"{M} long_title.yaml", "long_title.yaml:5", "title", "2000"),
    (f"{M} many.yaml", "many.yaml:5", "unknown0", "more"),
    (f"{M} many_twice.yaml", "many_twice.yaml:5", "duplicate", "more"),
    (f"{M} name.yaml", "name.yaml:1", "name", "../x"),
    (f"{M} ansi.yaml", "ansi.yaml:1", "name"),
    (f"{M} window.yaml", "window.yaml:5", "window", "1"),
    (f"{M} self.yaml", "self.yaml:1", "extends"),
    (f"{M} self_path.yaml", "self_path.yaml:1", "extends"),
    (f"{M} parent.yaml", "parent.yaml:2", "extends", "gpt9", "gpt2"),
    (f"{M} parents.yaml", "parents.yaml:1", "extends"),
    (f"{M} child.yaml", "child.yaml:2", "layers", "foo"),
    (f"{M} moe.yaml", "moe.yaml:5", "experts"),
    (f"{M} big.yaml", "big.yaml", "1 MiB"),
    (f"{M} folder.yaml", "folder.yaml", "folder"),
    (f"{M} empty", "empty", "config.json"),
    (f"{M} inner", "inner", "folder"),
    (f"{M} fifo.yaml", "fifo.yaml"),
    (f"{M} fifo.json", "fifo.json"),
    (f"{M} loop.yaml", "loop.yaml", "symbolic"),
    (f"{M} /dev/zero", "/dev/zero"),
    (f"{M} zero_device.json", "zero_device.json"),
    (f"{M} nowhere.yaml", "nowhere.yaml", MISSING),
    (f"{M} nowhere.json", "nowhere.json", MISSING),
    (f"{M} ~nobody-here/x.yaml", "~nobody-here"),
    ((M, "x" * 300 + ".yaml"), "too long"),
    ((M, "/" + "y" * 300), "too long"),
    ((M, "a\nb.yaml"), "a\\nb.yaml", MISSING),
    ((M, "./\x1b[31m.yaml"), MISSING),
    (f"{PLAN} nowhere.yaml", "nowhere.yaml", MISSING),
    (f"{P} --hardware nowhere.yaml", "nowhere.yaml", MISSING),
    # Hugging Face configs: file, key, range
    (f"{M} large.json", "large.json", "1 MiB"),
    (f"{M} empty.json", "empty.json", "JSON"),
    (f"{M} list.json", "list.json", "object"),
    (f"{M} cut.json", "cut.json:7", "JSON"),
    (f"{M} nan.json", "nan.json", "NaN"),
    (f"{M} inf.json", "inf.json", "Infinity"),
    (f"{M} 1e999.json", "1e999"),
    (f"{M} twice.json", "duplicate key", "vocab_size"),
    (f"{M} many.json", "duplicate key", "more"),
    (f"{M} deep.json", "nested"),
    (f"{M} digits.json", "digits.json", "digits"),
    (f"{M} utf16.json", "utf16.json: ", "UTF-8"),
    (f"{M} negative.json", "num_hidden_layers", "1 and 10,000"),
    (f"{M} zero.json", "hidden_size", "1 and"),
    (f"{M} huge.json", "hidden_size", "1,000,000"),
    *(
        (f"{M} {name}.json", f"{name}.json", "hidden_size", "whole number")
        for name in ("text", "float", "flag", "null", "listed")
    ),
    (f"{M} missing.json", "num_hidden_layers: missing", "vocab_size: missing"),
    (f"{M} no_type.json", "model_type", "llama"),
    (f"{M} type.json", "lama", "did you mean llama"),
    (f"{M} number_type.json", "model_type", "text"),
    (f"{M} long_type.json", "model_type"),
    (f"{M} ansi.json", "model_type"),
    (f"{M} moe.json", "experts", "not supported"),
    (f"{M} bert.json", "encoder", "not supported"),
    (f"{M} kv.json", "num_key_value_heads", "3", "4"),
    (f"{M} width.json", "5", "hidden_size 64"),
    (f"{M} tied.json", "tie_word_embeddings", "true or false"),
    # accelerators
    (f"{H} h_unit.yaml", "h_unit.yaml:14", "memory.bandwidth", "GiB", "TB/s"),
    (f"{H} h_bare.yaml", "h_bare.yaml:14", "memory.bandwidth", "unit", "TB/s"),
    (f"{H} h_negative.yaml", "memory.bandwidth", "between"),
    (f"{H} h_zero.yaml", "memory.bandwidth", "between"),
    (f"{H} h_nan.yaml", "memory.bandwidth", "nan"),
    (f"{H} h_inf.yaml", "memory.bandwidth", "between"),
    (f"{H} h_capacity.yaml", "h_capacity.yaml:14", "memory"),
    (f"{H} h_byte.yaml", "h_byte.yaml:14", "memory"),
    (f"{H} h_visible.yaml", "h_visible.yaml:14", "visible", "capacity"),
    (f"{H} h_unseen.yaml", "h_unseen.yaml:14", "visible"),
    (f"{H} h_efficiency.yaml", "kernels.gemm.efficiency", "100%"),
    (f"{H} h_latency.yaml", "kernels.gemm.latency", "between"),
    (f"{H} h_typo.yaml", "h_typo.yaml:10", "peak.bf61", "did you mean bf16"),
    (f"{H} h_peak.yaml", "h_peak.yaml:10", "peak.bf16", "between"),
    (f"{H} h_lower.yaml", "peak.bf16", "tflop/s", "did you mean TFLOP/s"),
    (f"{H} h_no_peak.yaml", "peek", "did you mean peak"),
    (f"{H} h_peakless.yaml", "h_peakless.yaml:7", "peak"),
    (f"{H} h_tdp.yaml", "power.tdp", "unit", "700 W"),
    (f"{H} h_idle.yaml", "idle", "tdp"),
    (f"{H} h_rent.yaml", "price.rent", "between"),
    (f"{H} h_euro.yaml", "price.purchase", "EUR", "USD"),
    (f"{H} h_units.yaml", "compute_units", "1"),
    (f"{H} h_cluster.yaml", "h_cluster.yaml:6", "usual_cluster", "dgx-h100"),
    (f"{H} h_wrong.yaml", "h_wrong.yaml:6", "usual_cluster", "a100-sxm-80"),
    (f"{H} h_alone.yaml", "usual_cluster", "missing"),
    (f"{H} h_framework.yaml", "h_framework.yaml:5", "usual_framework", "nope", "megatron"),
    (f"{H} h_memory.yaml", "h_memory.yaml:14", "memory"),
    (f"{H} h_self.yaml", "h_self.yaml:1", "extends"),
    (f"{H} h_parent.yaml", "h_parent.yaml:1", "extends", "h100-sxm-80"),
    (f"{H} h_child.yaml", "h_child.yaml:3", "bandwith", "did you mean bandwidth"),
    (f"{H} missing.yaml", "missing.yaml"),
    (f"{H} folder.yaml", "folder"),
    (f"{H} empty", "empty", "folder"),
    ("hardware show h100-sxm-80 --profiles profiles", "h100-sxm-80.yaml:14", "GiB"),
    # clusters
    (f"{H} c_nodes.yaml", "c_nodes.yaml:6", "node.devices", "1"),
    (f"{H} c_grow.yaml", "c_grow.yaml", "tiers", "grow"),
    (f"{H} c_multiple.yaml", "tiers", "multiple", "12"),
    (f"{H} c_bandwidth.yaml", "innermost tier", "bandwidth"),
    (f"{H} c_no_tiers.yaml", "c_no_tiers.yaml:12", "tiers", "1"),
    (f"{H} c_device.yaml", "c_device.yaml:4", "accelerator", "nope"),
    (f"{H} c_itself.yaml", "c_itself.yaml:4", "accelerator", "dgx-h100"),
    (f"{H} c_nothing.yaml", "c_nothing.yaml:4", "accelerator"),
    (f"{H} c_inline.yaml", "c_inline.yaml:4", "bandwith", "did you mean bandwidth"),
    (f"{H} c_algorithm.yaml", "c_algorithm.yaml:24", "swich", "switch"),
    (f"{H} c_collective.yaml", "c_collective.yaml:20", "all_redcue", "all_reduce"),
    (f"{H} c_torus.yaml", "c_torus.yaml:13", "torus"),
    (f"{H} c_empty.yaml", "c_empty.yaml", "all_to_all"),
    (f"{H} c_share.yaml", "c_share.yaml:18", "oversubscription", "1"),
    (f"{H} c_edges.yaml", "c_edges.yaml:3", "torus 16 x 16 x 28 is 7,168", "size is 8,960"),
    (f"{H} c_size.yaml", "c_size.yaml:3", "torus 16 x 20 x 28 is 8,960", "size is 4,096"),
    (f"{H} c_edge.yaml", "c_edge.yaml:3", "torus.1: must be from 1 to 1,000,000,000 (given 0)"),
    (f"{H} c_own.yaml", "own_share: must be above -1 and at most 10 (given -50)"),
    (f"{H} c_list.yaml", "c_list.yaml:4", "kind: missing", "to change one entry: tiers: {nvlink: "),
    # settings: the flag stands for file:line
    *(
        ((f"{T} --set", f"accelerator.memory.bandwidth={text}"), "--set accelerator.memory.bandwidth", "TB/s")
        for text in ("4", "4 GiB", "nan", "", "[4]")
    ),
    (
        (f"{T} --set", "accelerator.memory.bandwith=4 TB/s"),
        "--set accelerator.memory.bandwith",
        "did you mean bandwidth",
    ),
    ((f"{T} --set", "accelerator.memory.bandwidth.x=4"), "--set accelerator.memory.bandwidth.x"),
    *(
        (f"{T} --set model.layers={text}", "--set model.layers", "layers", "1")
        for text in ("0", "-1", "1.5", "x", "[1]", "{}", "1e300", "")
    ),
    (f"{T} --set model.heads=5", "--set model.heads", "768", "5"),
    (f"{T} --set cluster.tiers=3", "--set cluster.tiers"),
    (f"{T} --set framework.libraries=[trch]", "--set framework.libraries", "trch", "did you mean torch"),
    (f"{T} --set framework.libraries.0=pytorch", "--set framework.libraries.0", "did you mean torch"),
    (f"{T} --set framework.overlap_gradients=maybe", "--set framework.overlap_gradients", "true"),
    ((f"{T} --set", "accelerator" + ".x" * 5000 + "=1"), "--set accelerator", "unknown field"),
    (f"{T} --set accelerator.usual_cluster=nope", "--set accelerator.usual_cluster"),
]

INFEASIBLE = [
    (f"{PLAN} 405b --gpus 8", "llama-3.1-405b", "out of memory", "Nearest fix", "--gpus"),
    (f"{PLAN} megatron-1t --gpus 1", "megatron-1t", "out of memory", "Nearest fix"),
    (f"{P} --pin tp=3", "tp=3", "8"),
    (f"{P} --pin tp=8", "tp=8", "heads"),
    (f"{P} --pin micro_batch=3", "micro_batch=3"),
    (f"{P} --pin shard=3", "shard=3"),
    (f"{P} --pin vpp=1000000000", "vpp=1000000000"),
    (f"{P} --tokens 15T --target-days 30", "30 days ", "Nearest fix", "--gpus"),
    (f"{P} --target-tokens-per-s 1e7", "10M tokens/s", "Nearest fix", "--gpus"),
    (f"{P} --target-tokens-per-s 1e29", "1e+29"),
]


def named(rows):
    return [pytest.param(row[0], row[1:], id=f"{' '.join(arguments(row[0]))[:70]!a}") for row in rows]


@pytest.mark.parametrize(("command", "fragments"), named(USAGE))
def test_wrong_usage(capsys, command, fragments):
    check(capsys, command, 2, fragments)


@pytest.mark.parametrize(("command", "fragments"), named(BAD_FILES))
def test_bad_file(capsys, command, fragments):
    check(capsys, command, 3, fragments)


@pytest.mark.parametrize(("command", "fragments"), named(INFEASIBLE))
def test_infeasible(capsys, command, fragments):
    err = check(capsys, command, 4, fragments)
    assert not re.search(r"\d{9}|\d(,\d{3}){3}|e\+\d+ times", err.replace("1000000000", "")), "numbers nobody can read"


@pytest.mark.parametrize(
    "command",
    [
        f"{PLAN} 405b --gpus 8",
        f"{P} --gpus 8 --target-tokens-per-s 1e7",
        f"{P} --gpus 8 --tokens 15T --target-days 30",
    ],
)
def test_nearest_fix_is_true(capsys, command):
    run(command.split(), debug=False)
    found = re.search(r"--gpus (\d+)", capsys.readouterr().err)
    assert found
    fixed = [*command.split(), "--gpus", found.group(1)]
    assert run(fixed, debug=False) == 0, capsys.readouterr().err


def test_all_problems_at_once(capsys):
    Path("several.yaml").write_text(MODEL + "vocab: 0\nwindow: x\nnrom: 3\n", encoding="utf-8")
    err = check(
        capsys, f"{M} several.yaml", 3, ["several.yaml:5", "several.yaml:6", "several.yaml:7", "did you mean norm"]
    )
    assert len(err.splitlines()) == 3
    err = check(capsys, f"{H} c_list.yaml", 3, ["kind", "latency", "collectives", "source"])
    assert len(err.splitlines()) == 4, "one line for each missing field, the hint once, nothing of entries"


def test_sequence_beyond_a_learned_position_table(capsys):
    code = run([*T.split(), "--seq-len", "4096", "--global-batch", "8"], debug=False)
    err = capsys.readouterr().err
    assert code in (0, 2)
    assert "positions" in err, "GPT-2 has 1024 learned positions: refuse, or warn"
    assert re.search("1,?024", err)


def test_pin_of_several_schedules_searches_each(capsys):
    assert run([*P.split(), "--pin", "schedule=gpipe,1f1b"], debug=False) == 0, capsys.readouterr().err


@pytest.mark.parametrize("gpus", [97, 9_999_991, 9_999_990, 8_648_640, 10_000_000])
def test_odd_numbers_of_devices_end_soon(capsys, gpus):
    code = run([*P.split(), "--gpus", str(gpus), "--top", "1"], debug=False)
    out, err = capsys.readouterr()
    assert code in (0, 2, 4), err
    assert len(err) < LIMIT_CHARACTERS
    assert bool(out) == (code == 0)


def test_failure_leaves_files_alone(folder, capsys):
    before = sorted(path.name for path in folder.iterdir())
    for flags in (["--tp", "3"], ["--hardware", "h_unit.yaml"], ["--format", "xml"]):
        assert run([*T.split(), *flags, "-o", "keep.json"], debug=False) in (2, 3)
    assert Path("keep.json").read_text(encoding="utf-8") == "keep\n"
    assert sorted(path.name for path in folder.iterdir()) == before
    assert capsys.readouterr().out == ""


def test_broken_profile_is_listed_as_broken(capsys):
    assert run(["hardware", "list", "--profiles", "profiles"], debug=False) == 0
    out, err = capsys.readouterr()
    line = next(line for line in (out + err).splitlines() if "h100-sxm-80" in line)
    assert "broken" in line
    assert "a100-sxm-80" in out


@pytest.mark.parametrize("command", ["", "estimate", "models", "hardware"])
def test_no_command_shows_help(capsys, command):
    assert run(command.split(), debug=False) in (0, 2)
    out, err = capsys.readouterr()
    assert "Usage" in out + err
    assert "bug" not in err


# The Python API: hwsim.errors.* and nothing else.

NAN, INF = float("nan"), float("inf")
ODD = [
    "",
    "2 GiB",
    b"x",
    -1,
    0,
    1.5,
    NAN,
    INF,
    10**30,
    1 + 2j,
    [1.5],
    ["a"],
    {},
    {"a": 1},
    {1, 2},
    (1, 2, 3),
    True,
    object(),
    abs,
    np.array([1.0, NAN]),
    np.array([[1, 2]]),
    np.array(["a", "b"]),
    np.float64("nan"),
    np.datetime64("2026-01-01"),
    LONG,
    "\0",
    "\ud800",
]


@cache
def machine():
    """Loaded once: reading a profile takes longer than an estimate."""
    return hwsim.load_hardware("a100-sxm-80")


@cache
def model():
    return hwsim.load_model("gpt2")


def estimate(**given):
    return hwsim.estimate_training(**{"model": model(), "hardware": machine(), "gpus": 8, "global_batch": 64, **given})


def plan(**given):
    return hwsim.plan(**{"model": model(), "hardware": machine(), "gpus": 2, "global_batch": 4, **given})


def table(**given):
    return hwsim.evaluate(model(), machine(), {"devices": 8, "global_batch": 64, "seq_len": 1024, **given})


def gemm(**given):
    return hwsim.operator_time(**{"hardware": machine(), "operator": "gemm", "m": 64, "n": 64, "k": 64, **given})


def attention(**given):
    sizes = {"q_len": 64, "kv_len": 64, "heads": 4, "kv_heads": 4, "head_dim": 64}
    return hwsim.operator_time(**{"hardware": machine(), "operator": "attention", **sizes, **given})


def stream(**given):
    return hwsim.operator_time(**{"hardware": machine(), "operator": "stream", "bytes": 64, **given})


def collective(**given):
    return hwsim.collective_time(
        **{"hardware": machine(), "collective": "all_reduce", "bytes": 64, "devices": 8, **given}
    )


def shape(**given):
    return hwsim.count_parameters({"layers": 2, "hidden": 64, "heads": 4, **given})


CALLS = {
    estimate: "model hardware gpus tp dp zero micro_batch global_batch seq_len recompute sequence_parallel schedule "
    "order precision attention optimizer graphs framework settings profiles ep nonsense",
    plan: "model hardware gpus task objective top pin tokens target_days target_tokens_per_s settings profiles "
    "prices grid nonsense",
    table: "devices tp global_batch seq_len recompute nonsense",
    gemm: "hardware operator m n k batch dtype nonsense",
    attention: "q_len kv_len heads kv_heads head_dim batch causal dtype",
    stream: "bytes",
    collective: "hardware collective bytes devices",
    shape: "layers hidden heads kv_heads head_dim ffn gated vocab norm positions max_positions window name title "
    "nonsense",
}


@pytest.mark.parametrize(("call", "name"), [(call, name) for call, names in CALLS.items() for name in names.split()])
def test_api_raises_nothing_but_its_own_errors(call, name):
    wrong = []
    for value in ODD:
        try:
            call(**{name: value})
        except HwsimError as error:
            if len(str(error)) >= LIMIT_CHARACTERS:
                wrong.append(f"{value!a:.40}: a message of {len(str(error))} characters")
        except Exception as error:
            wrong.append(f"{value!a:.40}: {type(error).__name__}: {str(error)[:80]}")
    assert not wrong


@pytest.mark.parametrize(
    ("call", "given", "fragment"),
    [
        (estimate, {"tp": [1, 2], "pp": [1, 2, 4]}, "length"),
        (estimate, {"tp": []}, "tp"),
        (estimate, {"tp": 8}, "heads"),
        (estimate, {"tp": [1, 8]}, "strategy 1"),
        (estimate, {"precison": "bf16"}, "did you mean precision"),
        (estimate, {"micro_batches": 1}, "did you mean micro_batch"),
        (estimate, {"settings": ["model.layers=x"]}, "layers"),
        (estimate, {"model": {"layers": 2, "hidden": 64, "heads": 4, "hiden": 1}}, "did you mean hidden"),
        (estimate, {"hardware": {"name": "x"}}, "usual_cluster"),
        (estimate, {"hardware": {}}, "missing"),
        (estimate, {"ep": 2}, "has no experts"),
        (estimate, {"recompute": ["attention", "norm"]}, "core_attn"),
        (estimate, {"recompute": ["none", "mlp"]}, "none stands alone"),
        (estimate, {"schedule": "interleaved", "pp": 2}, "vpp"),
        (estimate, {"seq_len": [512, 4096]}, "strategy 1: seq_len 4096"),
        (plan, {"task": "infer", "tokens": 1e12}, "tokens"),
        (plan, {"pin": ["tp=3"]}, "tp=3"),
        (plan, {"job": 3}, "job"),
        (table, {"devices": [8, 8], "global_batch": [8, 8, 8]}, "length"),
        (table, {"devices": [], "global_batch": [], "seq_len": []}, "empty"),
        (table, {"tpp": 1}, "did you mean tp"),
        (table, {"gpus": 16}, "devices"),
        (gemm, {"m": -3}, "m"),
        (gemm, {"m": NAN}, "m"),
        (gemm, {"m": [1, 2], "n": [1, 2, 3]}, "length"),
        (gemm, {"dtype": "fp8"}, "fp8"),
        (gemm, {"operator": "gem"}, "did you mean gemm"),
        (gemm, {"library": "vlm"}, "did you mean vllm"),
        (gemm, {"library": "fa3"}, "fa3 runs attention alone, no gemm (others: torch"),
        (stream, {"library": "flashinfer"}, "flashinfer runs attention alone"),
        (gemm, {"k": None}, "gemm needs k"),
        *(
            (gemm, {name: value}, f"{name}: must be whole")
            for name in ("m", "n", "k")
            for value in (1.5, True, [1, 2.5])
        ),
        (attention, {"kv_len": -1}, "kv_len"),
        (attention, {"heads": 4, "kv_heads": 8}, "heads 4 must be a multiple of kv_heads 8"),
        (attention, {"heads": [4, 8, 6]}, "heads 6 must be a multiple of kv_heads 4"),
        (attention, {"q_len": 65}, "q_len 65 is more than kv_len 64"),
        (attention, {"head_dim": 1025}, "head_dim: must be numbers from 1 to 1,024"),
        (attention, {"head_dim": 64.5}, "head_dim: must be whole"),
        (estimate, {"settings": "framework.libraries=[trch]"}, "did you mean torch"),
        (stream, {"bytes": NAN}, "bytes"),
        (stream, {"bytes": -1}, "bytes"),
        (collective, {"bytes": [1, 2], "devices": [2, 4, 8]}, "length"),
        (collective, {"bytes": -1}, "bytes"),
        (collective, {"devices": 1.5}, "devices"),
        (collective, {"collective": "allreduce"}, "all_reduce"),
        (shape, {"heads": 5}, "head_dim"),
        (shape, {"kv_heads": 3}, "kv_heads"),
    ],
)
def test_api_says_what_is_wrong(call, given, fragment):
    with pytest.raises(HwsimError, match=re.escape(fragment)):
        call(**given)


@pytest.mark.parametrize("strategies", [None, 3, [1, 2], {}, {"tp": [1, 2]}, "devices"])
def test_evaluate_takes_tables_only(strategies):
    with pytest.raises(HwsimError):
        hwsim.evaluate(model(), machine(), strategies)


def test_evaluate_says_which_rows_are_legal():
    rows = {"devices": 8, "global_batch": 64, "seq_len": [1024, 2048, 1024, 1024], "tp": [1, 1, 8, 2]}
    assert hwsim.evaluate(model(), machine(), rows)["legal"].tolist() == [True, False, False, True]


def test_api_takes_what_the_command_line_takes():
    assert estimate(ep=1, etp=1).to_dict() == estimate().to_dict()
    assert gemm(library="default") == gemm()
    assert gemm(library="sarathi/torch") == gemm(library="torch")
    assert attention(library="fa3") == attention(), "a library that was not measured on the device"
    assert attention(q_len=128, causal=False) > 0, "keys of another sequence"
    assert attention(q_len=1, kv_len=64.5) > 0, "mean length of several sequences"


@pytest.mark.parametrize("given", [{"settings": "model.layers=3"}, {"settings": ["model.layers=3"]}])
def test_api_takes_one_setting_as_text(given):
    assert estimate(**given).model["parameters"] < 100e6


def test_api_takes_one_pin_as_text():
    assert plan(pin="tp=2").best.strategy["tp"] == 2


# As a process of its own.


def shell(command, **environment):
    """Run a shell command; HWSIM stands for the program."""
    line = command.replace("HWSIM", str(HWSIM))
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, **environment},
    )


SMALL = "HWSIM estimate train --model gpt2 --gpus 8"


@pytest.mark.skipif(not HWSIM.exists(), reason="hwsim is not installed as a command")
@pytest.mark.parametrize(
    ("command", "environment", "code", "message"),
    [
        pytest.param(f"{SMALL} >&-", {}, 2, "cannot write to stdout", id="closed stdout"),
        pytest.param(f"{SMALL} --json >&-", {}, 2, "cannot write to stdout", id="closed stdout, json"),
        pytest.param(f"{SMALL} --tp 3 2>&-", {}, 2, "", id="closed stderr"),
        pytest.param(f"{SMALL} --json > /dev/full", {}, 2, "space", id="full disk"),
        pytest.param(f"{SMALL} > /dev/full", {}, 2, "space", id="full disk, table"),
        pytest.param("HWSIM models list | head -1; exit ${PIPESTATUS[0]}", {}, 0, "", id="head"),
        pytest.param("HWSIM plan --model gpt2 --json | head -1; exit ${PIPESTATUS[0]}", {}, 0, "", id="head, json"),
        pytest.param(
            f"{SMALL} --recompute é",
            {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            2,
            "recompute",
            id="ascii",
        ),
        pytest.param(f"{SMALL} --model $'\\xff\\xfe'", {}, 2, "model", id="bytes"),
        pytest.param(SMALL, {"HWSIM_PROFILES": "/nowhere"}, 2, "/nowhere", id="HWSIM_PROFILES"),
        pytest.param("env -u HOME HWSIM models check '~/nowhere.yaml'", {}, 3, "nowhere.yaml", id="no HOME"),
        pytest.param("cd / && HWSIM hardware check nowhere.yaml", {}, 3, "nowhere.yaml", id="another directory"),
        pytest.param(f"{SMALL} --format xml", {}, 2, "xml", id="format"),
        pytest.param("HWSIM plan --gpus x --model gpt2", {"COLUMNS": "40"}, 2, "--gpus", id="40 columns"),
    ],
)
def test_process(command, environment, code, message):
    done = shell(command, **environment)
    assert "Traceback" not in done.stderr
    assert "a bug in hwsim" not in done.stderr
    assert code is None or done.returncode == code, done.stderr
    assert message in done.stderr
    assert len(done.stderr) < LIMIT_CHARACTERS


@pytest.mark.skipif(not HWSIM.exists(), reason="hwsim is not installed as a command")
def test_debug_shows_the_traceback():
    assert "Traceback" in shell(f"{SMALL} --tp 3 --debug").stderr


@pytest.mark.skipif(os.geteuid() == 0 or shutil.which("chmod") is None, reason="root may read everything")
def test_unreadable_file_and_folder(capsys, folder):
    secret = folder / "secret.yaml"
    secret.write_text(MODEL, encoding="utf-8")
    secret.chmod(0)
    check(capsys, f"{M} secret.yaml", 3, ["secret.yaml", "Permission denied"])
    closed = folder / "closed"
    closed.mkdir(mode=0o500)
    check(capsys, f"{T} -o closed/x.json", 2, ["closed/x.json", "Permission denied"])
