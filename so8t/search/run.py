"""train.search: one warm-up, then short PPO trials from it; the best settings go to the training.

The held-out reward is measured on validation prompts that nothing else looks at, by the reward of the config as it
is written, whatever weights a trial trains with. It is still the largest of some noisy numbers, so it flatters the
winner; the benchmark's rows are never seen here. The warm-up's state goes along, so the training does not repeat it.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from so8t import durable
from so8t.errors import InputError, StepFailed
from so8t.loop.checkpoint import Checkpoints
from so8t.loop.environment import fingerprint, prepare
from so8t.loop.microbatch import MicroBatch
from so8t.loop.trainer import Trainer
from so8t.models import write_thinking_tokenizer
from so8t.progress import Metric, Progress
from so8t.search.attempts import begin_attempt, forget
from so8t.search.config import SearchRun
from so8t.search.report import write_report
from so8t.search.study import StudyFile, ranges_of
from so8t.search.trial import NAME, Trial
from so8t.session import SessionFile, now
from so8t.step import Facts, Inputs
from so8t.study.propose import propose, worth_going_on
from so8t.train.config import Train, with_values
from so8t.train.data import Sample
from so8t.train.learner import Learner, build, freeze
from so8t.train.opinion import ask
from so8t.train.policy import Policy
from so8t.train.reward import Classify
from so8t.train.rollout import Judgement, sampled_reward
from so8t.train.run import load_samples, make_phases, pretrained_tower
from so8t.train.warm import PROMPTS, WARM, before_ppo


def run(config: SearchRun, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Search, or go on searching; `out` gets best.json, trials.json, prompts.json, the warm-up's state and the report."""
    started = time.monotonic()
    session = progress.session or SessionFile.open(progress.home, f"train.search-{out.name[:12]}", "search")
    # machine.resume names a checkpoint of the training.
    machine = progress.machine.model_copy(update={"resume": "auto"})
    config = config.model_copy(update={"train": config.train.within(machine.micro_batch_max, machine.save_memory)})
    progress = Progress(progress.step, machine, progress.home, (_Forward(progress, 0, None),), session)
    device = prepare(machine)
    progress.update(0, None, "loading the base and the data")
    classify = ask(inputs, str(device))
    tokenizer = session.folder / "tokenizer"
    token_ids = write_thinking_tokenizer(inputs["base"].path, tokenizer)
    learner = build(config.train, inputs["base"].path, tokenizer, token_ids, str(device), pretrained_tower(inputs))
    train, held_out = (load_samples(config.train, learner, inputs["data"], s) for s in ("train", "validation"))
    judged = choose_prompts(held_out, config.search.prompts, config.train.ppo.evaluation_prompts)
    own = {sample.record.id for sample in judged}
    rest = [sample for sample in held_out if sample.record.id not in own]
    checkpoints = Checkpoints(session.folder / "checkpoints", machine.checkpoint_keep)
    warm_up = Trainer(
        learner, before_ppo(make_phases(config.train, learner, train, rest)), checkpoints, session, progress,
        config.train.seed, fingerprint(config.train, device),
    )  # fmt: skip
    warm_up.run()
    search = _Search(config, learner, train, judged, progress, session, fingerprint(config.train, device), classify)
    with contextlib.closing(StudyFile(session.folder)) as study:
        search.run(study, warm_up.total)
        facts = write_report(config, study, out)
    _keep_warm_up(session.folder / "checkpoints" / f"final-{warm_up.total}", out / WARM)
    durable.write_json(out / PROMPTS, sorted(own))
    if progress.session is None:
        session.end("completed")
    return {
        **facts,
        "prompts": len(judged),
        "attempts": session.session.attempts,
        "damaged": session.session.problems,
        "seconds_this_attempt": time.monotonic() - started,
    }


def choose_prompts(held_out: list[Sample], count: int, judged_by_ppo: int) -> list[Sample]:
    """The last text rows by id; PPO compares itself on the first. InputError where they would overlap."""
    text = sorted((s for s in held_out if s.record.modality == "text"), key=lambda s: s.record.id)
    if len(text) < count + judged_by_ppo:
        raise InputError(
            f"{len(text)} validation rows are text",
            f"{count} for search.prompts, and {judged_by_ppo} others for train.ppo.evaluation_prompts",
            "lower one of the two, or add a source",
        )
    return text[len(text) - count :]


class _Forward:
    """A progress sink that counts on from `begun`, of a larger total."""

    def __init__(self, progress: Progress, begun: float, total: float | None, name: str = "") -> None:
        self._progress, self._begun, self._total, self._name = progress, begun, total, name

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """See `Sink`."""
        whole = self._total if self._total is not None else total
        self._progress.update(self._begun + done, whole, self._name + message, **metrics)


class _Search:
    """The trials, one after the other."""

    def __init__(
        self, config: SearchRun, learner: Learner, train: list[Sample], judged: list[Sample], progress: Progress,
        session: SessionFile, environment: dict[str, Any], classify: Classify | None,
    ) -> None:  # fmt: skip
        self.config, self.learner, self.train, self.judged = config, learner, train, judged
        self.progress, self.session, self.environment, self.classify = progress, session, environment, classify
        self.ranges = ranges_of(config.search)
        self.warm = {name: tensor.clone() for name, tensor in learner.tensors().items()}
        self.own = {one.name: _value(config.train, one.name) for one in config.search.parameters}

    def run(self, study: StudyFile, begun: int) -> None:
        """Until there are as many trials as wanted; `begun` steps were done before."""
        if study.problem:
            self.progress.update(begun, None, study.problem)
            self.session.update(problems=[*self.session.session.problems, study.problem])
        self._forget_all_but(study.running())
        wanted = self.config.search.trials
        while (trial := study.running()) is not None or len(study.finished()) < wanted:
            if trial is None:
                trial = study.begin(self._next(study.finished()), self.ranges)
            self._run_trial(study, trial, begun)
            forget(self._folder(trial.number))
            ended = study.finished()[-1]
            said = (
                f"trial {ended.number} ended: {ended.state.name.lower()} {ended.user_attrs.get('reason', '')}".rstrip()
            )
            self.progress.update(ended.number + 1, wanted, said)
            self.session.update(phase=said, current_step=begun + ended.number + 1, last_progress_time=now())

    def _next(self, finished: list[FrozenTrial]) -> dict[str, Any]:
        """The config's own values first: what is found must beat them."""
        inside = all(self.ranges[name]._contains(value) for name, value in self.own.items())
        if not finished and inside:
            return dict(self.own)
        return propose(finished, self.ranges, self.config.train.seed, self.config.search.startup)

    def _folder(self, number: int) -> Path:
        return self.session.folder / "trials" / str(number)

    def _forget_all_but(self, running: FrozenTrial | None) -> None:
        """What a process that was killed at a trial's end, or a damaged study, left behind."""
        kept = str(running.number) if running is not None else ""
        folder = self._folder(0).parent
        for child in sorted(folder.iterdir()) if folder.exists() else []:
            if child.name != kept:
                forget(child)

    def _run_trial(self, study: StudyFile, trial: FrozenTrial, begun: int) -> None:
        search, folder = self.config.search, self._folder(trial.number)
        checkpoints = Checkpoints(folder / "checkpoints", self.progress.machine.checkpoint_keep)
        session = begin_attempt(folder, f"{self.session.session.session_id}-trial-{trial.number}", checkpoints)
        if session.session.stalled >= search.tries_max:
            reason = f"its process died {session.session.stalled} times without getting further"
            study.end(trial, TrialState.FAIL, None, reason)
            return
        config = short(with_values(self.config.train, trial.params), search.updates)
        self.learner.restore(self.warm)
        freeze(self.learner)
        finished = study.finished()
        policy = Policy(self.learner, config, self.train, [], self.classify)
        phase = Trial(
            policy,
            search.report_every * policy.schedule.per_update,
            self._judge,
            lambda reports: not worth_going_on(finished, trial.params, self.ranges, reports, search.startup),
            lambda reports: study.report(trial, reports),
        )
        steps = phase.steps + 1
        sink = _Forward(
            self.progress, begun + trial.number * steps, begun + search.trials * steps, f"trial {trial.number}: "
        )
        progress = Progress(self.progress.step, self.progress.machine, self.progress.home, (sink,), session)
        trainer = Trainer(
            self.learner, [phase], checkpoints, session, progress, config.seed,
            {**self.environment, "trial": trial.params},
        )  # fmt: skip
        try:
            trainer.run()
        except StepFailed as error:
            # Its numbers left what is finite; they would do so again.
            study.end(trial, TrialState.FAIL, None, str(error))
            return
        result = trainer.metrics[NAME]
        if result["fault"]:
            study.end(trial, TrialState.FAIL, None, result["fault"])
            return
        study.end(trial, TrialState.PRUNED if result["pruned"] else TrialState.COMPLETE, result["reward"])

    def _judge(self) -> float:
        """By the config's own reward and sampling, so that trials can be compared."""
        config = self.config.train
        judgement = Judgement(config.reward, config.ppo.missing_end_penalty, self.classify)
        found = MicroBatch(config.ppo.batch).attempt(
            lambda rows: sampled_reward(self.learner, self.judged, config.ppo, judgement, config.seed + 1, rows)
        )
        return found["reward"]


def short(config: Train, updates: int) -> Train:
    """The config of a trial: so many updates, and no reviews of PPO's own, which go back to a better state."""
    ppo = config.ppo.model_copy(
        update={
            "updates": updates,
            "evaluation_every": 0,
            "anchor": config.ppo.anchor.model_copy(update={"prompts": 0}),
        }
    )
    return config.model_copy(update={"ppo": ppo})


def _value(config: Train, name: str) -> float:
    section, _, key = name.partition(".")
    value: float = getattr(getattr(config, section), key)
    return value


def _keep_warm_up(checkpoint: Path, target: Path) -> None:
    for file in sorted(checkpoint.iterdir()):
        durable.write_bytes(target / checkpoint.name / file.name, file.read_bytes())
