"""`examples/quickstart.py` trains in all modes, prints a table and saves a picture."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

ROW = re.compile(r"^(plain Keras|Keras, .*?|\w+, \"\w+\")\s+([01]\.\d+)\s+(\d+\.\d)$", re.M)
PNG = b"\x89PNG\r\n\x1a\n"


def test_quickstart_prints_a_table_of_all_modes_and_saves_the_curves(
    run_python, project: Path, tmp_path: Path
) -> None:
    output = run_python(project / "examples" / "quickstart.py")

    accuracy = {name: float(value) for name, value, _ in ROW.findall(output)}
    plain = ["plain Keras", "Keras, 50 steps at once"]
    modes = ['synchronous, "epoch"', 'asynchronous, "batch"', 'hogwild, "batch"']
    assert list(accuracy) == plain + modes, output
    assert all(value > 0.85 for value in accuracy.values()), accuracy
    assert len(re.findall(r"Epoch 8/8 - .*val_accuracy: 0\.\d+.* examples/s", output)) == 3
    assert (tmp_path / "quickstart.png").read_bytes().startswith(PNG)


def test_quickstart_takes_the_path_of_its_picture(project: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(project / "examples" / "quickstart.py"))
    curve = [0.5] * script["EPOCHS"]

    script["save_curves"]({"plain Keras": {"curve": curve}}, str(tmp_path / "curves.png"))

    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    assert inspect.signature(script["main"]).parameters["path"].default == "quickstart.png"
