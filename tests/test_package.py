"""A wheel built from the checkout works from any directory, with its profiles and models inside."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ANSWER = """
import sys
sys.path.insert(0, sys.argv[1])
import hwsim
from hwsim.cli.app import run
assert hwsim.__file__.startswith(sys.argv[1]), hwsim.__file__
command = "estimate train --model 8b --gpus 8 --zero 3 --recompute full --json"
sys.exit(run(command.split(), debug=True))
"""


def test_wheel_works_from_any_directory(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("hwsim-*.whl"))
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(place)
    for wanted in ("hwsim/hardware_profiles/accelerators/h100-sxm-80.yaml", "hwsim/hardware_profiles/grids/usa.yaml",
                   "hwsim/data/models/llama-3-70b.yaml", "hwsim/data/aliases.yaml",
                   "hwsim/data/frameworks/megatron.yaml",
                   "hwsim/report/templates/page.html.j2", "hwsim/report/templates/page.css",
                   "hwsim/scenarios_shipped/template.yaml"):  # fmt: skip
        assert wanted in names
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, str(place)], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"kind": "training"' in done.stdout
