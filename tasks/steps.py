"""One Prefect task for every step and part.

Prefect's cache is a view of the disk: a task's cache key holds the step's key, and the cache is
only asked while the store holds that artifact whole (otherwise the task runs and rewrites the
entry). The persisted result is a small reference, never the data.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
from prefect import get_run_logger, task
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException
from prefect.futures import PrefectFuture
from prefect.states import State
from prefect.task_runners import TaskRunner

from so8t import child, durable, fence, recoveries
from so8t.artifacts import Artifact, Store
from so8t.attempt import logs_of
from so8t.config import Config
from so8t.errors import GateFailed, GivenUp, InputLost, Interrupted, ResourceError, UserError
from so8t.faults import POLICIES, classify
from so8t.overview.words import duration
from so8t.progress import JsonLines, PlainLines, Sink
from so8t.recovery.attempts import Attempts
from so8t.session import SessionProgress, now
from so8t.step import Ref, execute, lookup, parts_of, plan, steps
from tasks.curves import PrefectCurves
from tasks.show import PrefectProgress, artifact_key, show_facts, show_refused

Reference = dict[str, Any]

# Between two lines of a step that runs in the flow's own process: `so8t status` tells of it from there.
NOTED_S = 1.0
# Sinks of the process that shows this run on its terminal; a worker's flow run has none.
terminal: list[Sink] = []


def _cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return f"{parameters['step']}-{parameters['key']}"


def _worth_retrying(task_: Any, task_run: Any, state: State) -> bool:
    """What the user must mend, and a gate that measured the same bytes, fail the same way again."""
    error = state.result(raise_on_failure=False)
    final = UserError | Interrupted | GivenUp | InputLost
    return not isinstance(error, final) and POLICIES[classify(error)].retry


@task(
    cache_key_fn=_cache_key,
    persist_result=True,
    result_serializer="json",
    retry_condition_fn=_worth_retrying,
    task_run_name="{step}-{part}",
)
def run_step(step: str, part: str, key: str, config: Config) -> Reference:
    """Make the artifact (in a child process where the step asks for one) and refer to it."""
    ref, store = Ref(step, part), Store(config.home())
    held = store.find(step, key) is not None
    logger, session = get_run_logger(), fence.current()
    progress = PrefectProgress(str(ref), config.machine.progress_interval_s)
    sinks: tuple[Sink, ...] = (
        PlainLines(logger.info, config.machine.progress_interval_s * 2),
        progress,
        *([SessionProgress(session)] if session else []),
        *terminal,
    )
    curves = _curves(ref, key, config)

    def say(what: str) -> None:
        logger.warning(what)
        for refusal in _told(sinks, str(ref), what):
            logger.warning("no note was taken of it: %s", refusal)

    tries = Attempts(ref, key, config, store, say, session)
    try:
        artifact = _counted(ref, key, lambda: tries.make(lambda now: _make(ref, now, store, (*sinks, *curves))))
    except GateFailed:
        show_refused(ref, store.set_aside_of(step, key)[-1])
        raise
    progress.end(f"done in {duration(artifact.seconds)}")
    show_facts(ref, artifact)
    for shown in curves:
        shown.show()
    return {
        "step": step,
        "part": part,
        "key": artifact.manifest.key,
        "content": artifact.content,
        "seconds": artifact.seconds,
        # Killed between the commit and this line, the store has it and Prefect does not know.
        "cached": held,
    }


def _told(sinks: Iterable[Sink], step: str, what: str) -> Iterator[Exception]:
    """Tell every sink what recovery does; what one cannot take must not end the wait that it is told of.

    A session cannot note a wait for room on the disk that is full, nor the UI one for a server that is its own.
    """
    for sink in sinks:
        try:
            sink.report(step, 0, None, what, {})
        except (ResourceError, httpx.HTTPError, PrefectException) as refusal:
            yield refusal


def _curves(ref: Ref, key: str, config: Config) -> tuple[PrefectCurves, ...]:
    """Of a step that notes its own progress: a training."""
    if lookup(ref, config).session != "own":
        return ()
    session, interval_s = recoveries.session_of(ref.step, key), config.machine.progress_log_interval_s
    return (PrefectCurves(config.home(), session, artifact_key(str(ref)), interval_s),)


def _make(ref: Ref, config: Config, store: Store, sinks: tuple[Sink, ...]) -> Artifact:
    if lookup(ref, config).child:
        return child.run(ref, config, store, sinks, logs_of(store.home))
    with contextlib.closing(JsonLines(child.log_file(logs_of(store.home), ref, child.PROGRESS), NOTED_S)) as noted:
        return execute(ref, config, store, (*sinks, noted))


def _counted(ref: Ref, key: str, make: Callable[[], Artifact]) -> Artifact:
    """Failures are counted in the run's session, so that a resumed run does not begin its retries anew."""
    session, name = fence.current(), f"{ref} {key[:12]}"
    try:
        artifact = make()
    except (Interrupted, UserError, GivenUp, InputLost):
        raise
    except Exception:
        if session is not None:
            # It is counted in memory all the same, and written with the next change.
            with durable.replacing_no_error(session.folder):
                session.count_failure(name)
        raise
    if session is not None:
        with durable.replacing_no_error(session.folder):
            session.update(last_progress_time=now())
    return artifact


def _retries_left(ref: Ref, key: str, config: Config) -> int:
    session = fence.current()
    spent = session.session.failures.get(f"{ref} {key[:12]}", 0) if session else 0
    return max(0, config.recovery.retries - spent)


def submit(ref: Ref, config: Config, runner: TaskRunner[Any] | None = None) -> PrefectFuture[Reference]:
    """Start a step whose inputs are finished, on a runner other than the flow's if one is given.

    It is Cached only where the disk holds it whole.
    """
    store = Store(config.home())
    planned = plan(ref, config, store)
    if (session := fence.current()) is not None:
        session.note_artifact(f"{ref.step}/{planned.key}")
    whole = store.find(ref.step, planned.key) is not None
    name = f"{ref.step}-{ref.part}".rstrip("-")
    tuned = run_step.with_options(
        name=ref.step,
        task_run_name=name,
        refresh_cache=not whole,
        retries=_retries_left(ref, planned.key, config),
        retry_delay_seconds=config.recovery.retry_delay_s,
        retry_jitter_factor=0.5,
    )
    given = {"step": ref.step, "part": ref.part, "key": planned.key, "config": config}
    return runner.submit(tuned, given) if runner else tuned.submit(**given)


def submit_parts(step: str, config: Config) -> list[PrefectFuture[Reference]]:
    """Start every part of a step, each a task run of its own."""
    parts = parts_of(steps()[step], config, Store(config.home()))
    return [submit(Ref(step, part), config) for part in parts]


def gather(futures: Iterable[PrefectFuture[Reference]]) -> list[Reference]:
    """Wait for all, so that none is left behind, then raise the first failure or give the references."""
    futures = list(futures)
    for future in futures:
        future.wait()
    references = []
    for future in futures:
        reference = future.result()
        reference = {**reference, "cached": reference["cached"] or future.state.name == "Cached"}
        references.append(reference)
        for sink in terminal:
            said = "cached" if reference["cached"] else f"done in {reference['seconds']:.1f} s"
            sink.report(str(Ref(reference["step"], reference["part"])), 1, 1, said, {})
    return references
