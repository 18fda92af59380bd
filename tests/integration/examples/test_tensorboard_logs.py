"""`examples/tensorboard_logs.py` writes logs of two workers, and draws their curves."""

from __future__ import annotations

from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"


def test_tensorboard_logs_writes_logs_and_a_picture(
    run_python, project: Path, tmp_path: Path
) -> None:
    output = run_python(project / "examples" / "tensorboard_logs.py")

    assert output.endswith(
        "The curves are in tensorboard.png, and the logs of TensorBoard in logs.\n"
    )
    assert (tmp_path / "tensorboard.png").read_bytes().startswith(PNG)
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"train", "validation"}
