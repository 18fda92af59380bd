"""Results over Spark Connect, without a server: the calls on a DataFrame, and their order."""

import pickle
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyspark import StorageLevel

from kspark.cluster import remote
from kspark.cluster.remote import (
    COALESCES,
    PIECES,
    RemoteResults,
    cut,
    cut_results,
    is_connect,
    joined,
    map_frame,
    map_pieces,
    setting,
)
from kspark.cluster.results import SCHEMA, PackedResults


class Conf(dict):
    def set(self, name, value):
        self[name] = value

    def unset(self, name):
        del self[name]


class Session:
    """Of Spark Connect: no `sparkContext`."""

    def __init__(self):
        self.log = []
        self.conf = Conf()
        self.catalog = SimpleNamespace(dropTempView=lambda name: self.log.append(("drop", name)))

    def table(self, name):
        return Frame(self, ("table", name))


class Frame:
    def __init__(self, session, content):
        self.sparkSession = session
        self.content = content

    def mapInArrow(self, f, schema):
        return Frame(self.sparkSession, ("mapped", schema, f, self))

    def createTempView(self, name):
        self.sparkSession.log.append(("view", name, self))

    def persist(self, level):
        session = self.sparkSession
        session.log.append(("persist", self.content, level, session.conf.get(COALESCES)))
        return self

    def unpersist(self, blocking):
        self.sparkSession.log.append(("unpersist", self.content, blocking))

    def collect(self):
        return self.content


def rows_of(batches):
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_results_are_reassembled_from_pieces_of_any_size(monkeypatch, size):
    monkeypatch.setattr(remote, "PIECE_BYTES", size)
    results = [b"", None, {"a": [1.5] * 9}, "text" * 10]
    rows = rows_of(batch for result in results for batch in cut(result))
    assert list(joined(rows)) == results
    assert max(len(piece) for piece, _ in rows) <= size
    assert [last for _, last in rows].count(True) == len(results)
    if size == 1:
        assert len(rows) == sum(len(pickle.dumps(r, pickle.HIGHEST_PROTOCOL)) for r in results)


def test_functions_get_the_partition_and_whole_results(monkeypatch):
    monkeypatch.setattr(remote, "PIECE_BYTES", 3)
    monkeypatch.setattr(remote, "partition", lambda: 5)
    batches = [batch for result in ("one", "two") for batch in cut(result)]
    pairs = map_pieces(lambda index, results: ((index, r) for r in results), iter(batches))
    assert list(joined(rows_of(pairs))) == [(5, "one"), (5, "two")]


def test_functions_get_the_partition_and_the_batches(monkeypatch):
    monkeypatch.setattr(remote, "partition", lambda: 5)
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2, 3])], names=["id"])
    counts = cut_results(lambda index, rows: ((index, b.num_rows) for b in rows), iter([batch]))
    assert list(joined(rows_of(counts))) == [(5, 3)]


def test_the_session_decides_whether_results_are_remote():
    frame = Frame(Session(), "rows")
    assert is_connect(frame.sparkSession)
    assert isinstance(map_frame(frame, len), RemoteResults)
    classic = SimpleNamespace(sparkContext=object())
    assert not is_connect(classic)
    seen = []
    frame = SimpleNamespace(
        sparkSession=classic,
        mapInArrow=lambda f, schema: seen.append(schema) or SimpleNamespace(rdd="rdd"),
    )
    assert isinstance(map_frame(frame, len), PackedResults)
    assert seen == [SCHEMA]


def test_persisted_results_have_a_view_at_the_server():
    session = Session()
    session.conf[COALESCES] = "false"
    results = RemoteResults(Frame(session, "rows"))
    assert results.persist(StorageLevel.MEMORY_AND_DISK) is results
    (_, name, frame), persisted = session.log
    assert frame.content == "rows"
    assert persisted == ("persist", ("table", name), StorageLevel.MEMORY_AND_DISK, "true")
    assert session.conf == {COALESCES: "false"}
    mapped = results.mapPartitionsWithIndex(len)._frame.content
    assert mapped[:2] == ("mapped", PIECES)
    assert mapped[3].content == ("table", name)
    results.unpersist(blocking=True)
    assert session.log[2:] == [("unpersist", ("table", name), True), ("drop", name)]
    results.unpersist()
    assert len(session.log) == 4


def test_a_failed_persist_drops_its_view(monkeypatch):
    def refuse(frame, level):
        raise ZeroDivisionError

    monkeypatch.setattr(Frame, "persist", refuse)
    session = Session()
    results = RemoteResults(Frame(session, "rows"))
    with pytest.raises(ZeroDivisionError):
        results.persist()
    (_, name, _), dropped = session.log
    assert dropped == ("drop", name)
    assert session.conf == {}
    results.unpersist()
    assert len(session.log) == 2


def test_every_persist_uses_a_new_view_name():
    session = Session()
    for _ in range(2):
        RemoteResults(Frame(session, "rows")).persist()
    assert len({entry[1] for entry in session.log if entry[0] == "view"}) == 2


def test_results_that_are_not_persisted_have_no_view():
    session = Session()
    results = RemoteResults(Frame(session, [row for b in cut(3) for row in rows_of([b])]))
    assert results.getNumPartitions() is None
    assert results.collect() == [3]
    results.unpersist()
    assert session.log == []


def test_a_setting_is_restored_after_an_error():
    session = Session()
    seen = []

    def work():
        with setting(session, "name", "value"):
            seen.append(dict(session.conf))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert seen == [{"name": "value"}]
    assert session.conf == {}
