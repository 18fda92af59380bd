"""A fit that goes on from a checkpoint ends with the bytes of one that nothing has disturbed."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kspark.job import checkpoints

PROGRAM = Path(__file__).with_name("killed_program.py")
SECONDS = ("computing_seconds", "waiting_seconds")


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("killed_program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Failing(keras.callbacks.Callback):
    """Ends the fit at the beginning of its third epoch, as any error on the driver does."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedError


def assert_same(found, expected, traffic=True):
    """The same bytes: weights, optimizer state and history, and as many epochs in the report."""
    for part in ("variables", "optimizer.variables"):
        left, right = (values_of(one.master_network, part) for one in (found, expected))
        assert len(left) == len(right)
        for mine, theirs in zip(left, right, strict=True):
            assert mine.dtype == theirs.dtype
            assert mine.tobytes() == theirs.tobytes(), part
    skipped = SECONDS if traffic else (*SECONDS, "bytes_sent", "bytes_received")
    histories = [one.master_network.history for one in (found, expected)]
    left, right = ({k: v for k, v in h.history.items() if k not in skipped} for h in histories)
    assert left == right
    assert histories[0].epoch == histories[1].epoch == [0, 1, 2, 3]
    assert [facts.epoch for facts in found.last_fit.epochs] == [0, 1, 2, 3]


def values_of(model, part):
    variables = model.variables if part == "variables" else model.optimizer.variables
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def test_a_killed_script_goes_on_and_ends_with_the_same_bytes(spark, program, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "SPARK_LOCAL_DIRS": str(tmp_path)}
    with (tmp_path / "output").open("wb") as output:
        ended = subprocess.run(
            [sys.executable, PROGRAM, folder], stdout=output, stderr=output, env=environment
        )
    assert ended.returncode == -9, (tmp_path / "output").read_text()
    assert sorted(os.listdir(folder)) == ["epoch-1.zip", "epoch-2.zip"]
    undisturbed = program.trained()
    capsys.readouterr()
    resumed = program.trained(checkpoint=folder, resume=True, verbose=2)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"Training goes on from {folder}/epoch-2.zip, after 2 epochs."
    assert [line[:9] for line in printed[1:]] == ["Epoch 3/4", "Epoch 4/4"]
    assert resumed.last_fit.road == "live"  # a long job: the tasks brought the files themselves
    assert_same(resumed, undisturbed)
    assert sorted(os.listdir(folder)) == ["epoch-3.zip", "epoch-4.zip"]
    # Nothing is left to train: the script may be run again, and gives the same.
    capsys.readouterr()
    assert_same(program.trained(checkpoint=folder, resume=True, verbose=2), undisturbed)
    told = f"Nothing is left to train: {folder}/epoch-4.zip has 4 epochs."
    assert capsys.readouterr().out.splitlines() == [told]


MODES = [
    {"road": "rounds", "compression": "top_k", "seed": None},
    {"frequency": "batch", "compression": "int8"},
    pytest.param({"server_optimizer": "elastic_average"}, marks=pytest.mark.thorough),
    pytest.param({"frequency": 2, "server_optimizer": "adam"}, marks=pytest.mark.thorough),
    pytest.param(
        {"frequency": 2, "server_optimizer": "elastic_average"}, marks=pytest.mark.thorough
    ),
    # With one worker, these are deterministic, too.
    {
        "mode": "asynchronous",
        "frequency": 2,
        "server_optimizer": "elastic_average",
        "num_workers": 1,
    },
    pytest.param(
        {"mode": "asynchronous", "compression": "int8", "num_workers": 1},
        marks=pytest.mark.thorough,
    ),
    pytest.param({"mode": "hogwild", "frequency": 3, "num_workers": 1}, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize("settings", MODES, ids=str)
def test_every_mode_goes_on_with_the_same_bytes(spark, program, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MIN_GROUPED_SHARDS", 1)  # one shard at a time
    with pytest.raises(InterruptedError):
        program.trained(Failing(), settings=settings, checkpoint=tmp_path)
    with monkeypatch.context() as draws_another_seed:
        draws_another_seed.setattr(np.random, "randint", lambda *_: 5)
        resumed = program.trained(settings=settings, checkpoint=tmp_path, resume=True)
    # Checkpoints end a live job after each epoch, and replicas fetch the weights once per job.
    assert_same(resumed, program.trained(settings=settings), traffic=False)


def test_rows_are_mixed_as_if_nothing_had_happened(spark, program, tmp_path, caplog):
    """The third epoch, with which the fit goes on, is in the middle of a period."""
    with pytest.raises(InterruptedError):
        program.trained(Failing(), checkpoint=tmp_path, reshuffle=3)
    with pytest.raises(ValueError, match=r"reshuffle was 3 and is None\."):
        program.trained(checkpoint=tmp_path, resume=True)
    resumed = program.trained(checkpoint=tmp_path, resume=True, reshuffle=3)
    assert_same(resumed, program.trained(reshuffle=3), traffic=False)
    with caplog.at_level(logging.INFO, "kspark"):
        over = program.trained(checkpoint=tmp_path, resume=True, reshuffle=3)
    assert_same(over, resumed)
    assert "Nothing is left to train" in caplog.text
    assert "rows were mixed" not in caplog.text


def test_several_asynchronous_replicas_go_on_from_the_end_of_an_epoch(spark, program, tmp_path):
    settings = {"mode": "asynchronous", "frequency": 2, "max_staleness": 1, "seed": None}
    with pytest.raises(InterruptedError):
        program.trained(Failing(), settings=settings, checkpoint=tmp_path)
    resumed = program.trained(settings=settings, checkpoint=tmp_path, resume=True)
    model = resumed.master_network
    assert model.history.epoch == [0, 1, 2, 3]
    assert all(len(values) == 4 for values in model.history.history.values())
    # 36 training rows per shard make 5 batches per epoch.
    assert int(model.optimizer.iterations) == 4 * 5
    assert all(w["state_kept"] for facts in resumed.last_fit.epochs for w in facts.workers)


def test_checkpoints_of_another_fit_are_refused(spark, program, tmp_path):
    program.trained(checkpoint=tmp_path, epochs=1)
    with pytest.raises(FileExistsError, match=r"up to epoch 1\. Set `resume=True`"):
        program.trained(checkpoint=tmp_path)
    for settings, arguments, message in (
        ({"batch_size": 16}, {}, r"batch_size was 8 and is 16\."),
        ({"seed": 8}, {}, r"settings\. seed was 7 and is 8\. Use the same ones"),
        ({"num_workers": 1}, {}, r"examples of shard 0 was 36 and is 72; examples of shard 1 was "),
        ({}, {"validation_split": 0.5}, r"examples of shard 0 was 36 and is 2\d;"),
    ):
        with pytest.raises(ValueError, match=rf"`checkpoint` must be .*{message}"):
            program.trained(settings=settings, checkpoint=tmp_path, resume=True, **arguments)
    assert os.listdir(tmp_path) == ["epoch-1.zip"]


def test_a_fit_that_callbacks_ended_stays_over(spark, program, tmp_path, capsys):
    class Ends(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    ended = program.trained(Ends(), checkpoint=tmp_path, resume=True, verbose=2)
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"There is no checkpoint in {tmp_path}: training starts from the beginning."
    again = program.trained(Ends(), checkpoint=tmp_path, resume=True)
    assert again.master_network.history.epoch == [0, 1]
    for mine, theirs in zip(
        *(values_of(one.master_network, "variables") for one in (again, ended)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match=r"`epochs` must be >= 2, the epochs of the checkpoint"):
        program.trained(Ends(), checkpoint=tmp_path, resume=True, epochs=1)
