"""The operations that fits need of classic and of Spark Connect sessions."""

import threading
from types import SimpleNamespace

import pytest

from kspark.cluster.engine import ClassicEngine, ConnectEngine, engine_of
from kspark.cluster.remote import RemoteResults
from kspark.cluster.slots import has_speculation
from kspark.cluster.spark_job import JobLostError, job_error
from kspark.errors import ClusterError, EnvironmentMismatchError
from kspark.plan import TrainingPlan
from kspark.spark_model.arguments import check_session


class Remote:
    """A session of Spark Connect."""

    session_id = "a-session"

    def __init__(self):
        self.log = []
        self.client = SimpleNamespace(thread_local=threading.local())
        self.conf = {"spark.master": "local[2]"}

    def addTag(self, tag):
        self.log.append(("tag", tag))

    def interruptTag(self, tag):
        self.log.append(("interrupt", tag))

    def range(self, count):
        frame = SimpleNamespace(sparkSession=self, count=count)
        frame.mapInArrow = lambda f, schema: frame
        return frame


class Context:
    applicationId = "an-application"

    def __init__(self):
        self.log = []

    def broadcast(self, value):
        return ("broadcast", value)

    def runJob(self, rdd, function, partitions):
        return function(rdd[i] for i in partitions)

    def parallelize(self, values, count):
        assert len(values) == count
        return SimpleNamespace(mapPartitionsWithIndex=lambda task: (task, count))

    def statusTracker(self):
        stages = {
            1: SimpleNamespace(numActiveTasks=2, numCompletedTasks=0, numTasks=5),
            2: None,
            3: SimpleNamespace(numActiveTasks=1, numCompletedTasks=3, numTasks=4),
            4: SimpleNamespace(numActiveTasks=0, numCompletedTasks=0, numTasks=9),
        }
        jobs = {7: SimpleNamespace(stageIds=[1, 2]), 8: None, 9: SimpleNamespace(stageIds=[3, 4])}
        return SimpleNamespace(
            getJobIdsForGroup=lambda group: list(jobs) if group == "group" else [],
            getJobInfo=jobs.get,
            getStageInfo=stages.get,
        )

    def setJobGroup(self, *arguments):
        self.log.append(("group", *arguments))

    def cancelJobGroup(self, group):
        self.log.append(("cancel", group))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("kspark_daemon", {"KSPARK_WARM": "jax"}),
        ("kspark.cluster.daemon", {"KSPARK_WARM": "jax"}),
        ("pyspark.daemon", {}),
        (None, {}),
    ],
)
def test_functions_ask_for_warm_workers_only_where_there_are_some(module, expected, monkeypatch):
    monkeypatch.delenv("KSPARK_LOG", raising=False)
    settings = {"spark.python.daemon.module": module} if module else {}
    conf = SimpleNamespace(get=lambda name, default: settings.get(name, default))
    context = SimpleNamespace(getConf=lambda: conf, environment={})
    engine = ClassicEngine(SimpleNamespace(sparkContext=context))
    engine.use_warm_workers("jax")
    assert context.environment == expected
    monkeypatch.setenv("KSPARK_LOG", "1")
    engine.use_warm_workers("jax")
    assert context.environment == {**expected, **({"KSPARK_LOG": "1"} if expected else {})}
    ConnectEngine(Remote()).use_warm_workers("jax")


def test_a_classic_session_uses_job_groups_and_broadcasts():
    spark = SimpleNamespace(sparkContext=Context())
    engine = engine_of(spark)
    assert isinstance(engine, ClassicEngine)
    assert engine.application == "an-application"
    assert engine.share(3) == ("broadcast", 3)
    engine.enter("group", "description")
    engine.cancel("group")
    assert spark.sparkContext.log == [("group", "group", "description", True), ("cancel", "group")]
    assert engine.active_tasks("group") == 3
    assert engine.active_tasks("other") == 0
    assert engine.ended_tasks("group") == (3, 9)  # stage 4 is skipped, or has not begun
    assert engine.ended_tasks("other") == (0, 0)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(("setting", "on"), [("true", True), ("false", False), (None, False)])
def test_sparks_own_bar_is_known(monkeypatch, setting, on, terminal):
    settings = {} if setting is None else {"spark.ui.showConsoleProgress": setting}
    conf = SimpleNamespace(get=lambda name, default: settings.get(name, default))
    engine = ClassicEngine(SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: conf)))
    monkeypatch.setattr(
        "kspark.cluster.engine.sys.stderr", SimpleNamespace(isatty=lambda: terminal)
    )
    assert engine.shows_progress == (on and terminal)


def test_a_classic_session_can_collect_some_partitions(monkeypatch):
    monkeypatch.setattr("kspark.cluster.engine.task_slots", lambda spark: 3)
    engine = engine_of(SimpleNamespace(sparkContext=Context()))
    assert engine.collect(["a", "b", "c"], [2, 0]) == ["c", "a"]
    assert engine.collect(SimpleNamespace(collect=lambda: ["a", "b"]), None) == ["a", "b"]
    assert engine.on_every_slot("task") == ("task", 3)
    assert engine.on_every_slot("task", per_slot=2) == ("task", 6)


def test_a_spark_connect_session_uses_tags():
    spark = Remote()
    engine = engine_of(spark)
    assert isinstance(engine, ConnectEngine)
    assert engine.application == "a-session"
    assert engine.share({"a": 3}).value == {"a": 3}
    engine.enter("group", "description")
    engine.cancel("group")
    assert spark.log == [("tag", "group"), ("interrupt", "group")]
    assert isinstance(engine.on_every_slot(len), RemoteResults)
    assert engine.ended_tasks("group") == (0, 0)
    assert not engine.shows_progress


@pytest.mark.parametrize(
    ("mode", "frequency", "name"),
    [
        ("asynchronous", "epoch", "mode"),
        ("hogwild", "batch", "mode"),
        ("synchronous", "batch", "frequency"),
        ("synchronous", 4, "frequency"),
    ],
)
def test_live_modes_are_refused_over_spark_connect(mode, frequency, name):
    plan = TrainingPlan.create(mode=mode, frequency=frequency)
    received = repr({"mode": mode, "frequency": frequency}[name])
    with pytest.raises(ValueError, match=f"^`{name}` must .* Connect.*: {name}={received}$"):
        check_session(Remote(), plan)
    check_session(session_with("local[2]", None), plan)


def test_the_live_road_is_refused_over_spark_connect():
    """The mode comes first, because no road of another mode is possible."""
    for mode, name in (("synchronous", "road"), ("asynchronous", "mode")):
        plan = TrainingPlan.create(mode=mode, road="live")
        with pytest.raises(ValueError, match=f"^`{name}` must be .* over Spark Connect"):
            check_session(Remote(), plan)


def session_with(master, speculation):
    conf = {"spark.master": master}
    if speculation is not None:
        conf["spark.speculation"] = speculation
    return SimpleNamespace(sparkContext=Context(), conf=conf)


@pytest.mark.parametrize(
    ("value", "on"), [(None, False), ("false", False), ("true", True), ("True", True)]
)
def test_speculation_is_read_as_spark_reads_it(value, on):
    assert has_speculation(session_with("yarn", value)) == on
    assert not has_speculation(session_with("local[4]", value))
    assert not has_speculation(session_with("local-cluster[2,1,1024]", value))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"frequency": "batch"},
        {"straggler_timeout": 3},
        {"mode": "asynchronous"},
        {"mode": "hogwild", "frequency": "batch"},
    ],
)
@pytest.mark.parametrize("connect", [False, True])
def test_a_fit_is_refused_with_speculation(settings, connect):
    plan, spark = TrainingPlan.create(**settings), session_with("spark://host:7077", "true")
    if connect:
        del spark.sparkContext
    text = '^`spark.speculation` must be "false" in .* Received: spark.speculation=true$'
    with pytest.raises(ValueError, match=text):
        check_session(spark, plan)


@pytest.mark.parametrize("mode", ["asynchronous", "hogwild", "synchronous"])
def test_speculation_is_no_obstacle_without_other_hosts(mode):
    spark = session_with("local-cluster[2,1,1024]", "true")
    check_session(spark, TrainingPlan.create(mode=mode))


def test_other_jobs_are_those_outside_of_the_group():
    jobs = {"active": [3], "group": [1, 3]}
    tracker = SimpleNamespace(
        getActiveJobsIds=lambda: jobs["active"], getJobIdsForGroup=lambda group: jobs["group"]
    )
    spark = SimpleNamespace(sparkContext=SimpleNamespace(statusTracker=lambda: tracker))
    assert not ClassicEngine(spark).has_other_jobs("ours")
    jobs["active"] = [3, 4]
    assert ClassicEngine(spark).has_other_jobs("ours")
    assert not ConnectEngine(None).has_other_jobs("ours")


def test_a_straggler_timeout_is_refused_over_spark_connect():
    plan = TrainingPlan.create(mode="synchronous", frequency="epoch", straggler_timeout=3)
    with pytest.raises(ValueError, match="^`straggler_timeout` must be None over Spark Connect"):
        check_session(Remote(), plan)
    check_session(session_with("local[2]", None), plan)


def test_mixing_rows_is_refused_over_spark_connect():
    plan = TrainingPlan.create(reshuffle="epoch")
    with pytest.raises(ValueError, match="^`reshuffle` must be None over Spark Connect"):
        check_session(Remote(), plan)
    check_session(session_with("local[2]", None), plan)


def test_only_a_classic_session_groups_results():
    assert engine_of(SimpleNamespace(sparkContext=Context())).groups
    assert not engine_of(Remote()).groups


def test_rounds_are_accepted_over_spark_connect():
    check_session(Remote(), TrainingPlan.create(mode="synchronous", frequency="epoch"))


def test_an_error_of_spark_connect_gives_the_reason():
    text = (
        "[USER_RAISED_EXCEPTION] the label 5 is no class. SQLSTATE: P0001\n\nJVM stacktrace:\n"
        "org.apache.spark.SparkRuntimeException\n\tat org.apache.spark.sql.Error.raise(E.scala:1)"
    )
    error = job_error(RuntimeError(text))
    assert isinstance(error, JobLostError)
    assert "the label 5 is no class." in str(error)
    assert "scala" not in str(error)
    large = "RESOURCE_EXHAUSTED: CLIENT: Sent message larger than max (9 vs. 8)"
    assert type(job_error(RuntimeError(large))) is ClusterError
    missing = "[PYTHON_EXCEPTION] Traceback\nModuleNotFoundError: No module named 'keras'"
    assert isinstance(job_error(RuntimeError(missing)), EnvironmentMismatchError)


def test_callbacks_every_needs_a_session_with_a_connection():
    plan = TrainingPlan.create(callbacks_every=3)
    with pytest.raises(ValueError, match="`callbacks_every` must be None over Spark Connect"):
        check_session(Remote(), plan)
