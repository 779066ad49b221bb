"""Grades one system's replies to one task, each through a sample store of its own.

grades.jsonl    one line an item: grade, a second grade for some, status; the judge's reasons
grades.sqlite   the store (volatile)
"""

from pathlib import Path
from typing import Any

from so8t.artifacts import hash_json
from so8t.benchmark.answers import Line, read_jsonl, write_jsonl
from so8t.benchmark.config import Judged, LocalJudge
from so8t.benchmark.items import View, read_rows
from so8t.benchmark.judge import grade_in, question, reason_in
from so8t.benchmark.judges import Judge, open_judge
from so8t.benchmark.scorer import file_sha256, gguf_files
from so8t.benchmark.store import Cost, SampleStore
from so8t.benchmark.task import Rate, load_task
from so8t.config import Machine
from so8t.errors import InputError, StepFailed
from so8t.progress import Progress
from so8t.step import Facts, Inputs

NO_GRADE = "the judge's reply names no grade from 1 to 5"


def run(config: Judged, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Grade every answered item in an order that says nothing of the system; what has no grade is an error."""
    task = load_task(config.task)
    assert isinstance(task, Rate)
    refuse_itself(config, inputs)
    rows, view = dict(read_rows(inputs["questions"].path)), View(task)
    answers = [line for line in read_jsonl(inputs["cell"].path / "answers.jsonl") if line["status"] == "ok"]
    order = sorted(answers, key=lambda line: hash_json([line["id"], line["shown"]]))
    grades: dict[str, Line] = {}
    with SampleStore(out / "grades.sqlite") as store, Asked(config, store, progress.machine) as asked:
        for number, line in enumerate(order):
            item_id, row = line["id"], rows[line["id"]]
            texts = (
                view.prompt(item_id, row),
                view.text(task.reference, item_id, row),
                view.text(task.aspect, item_id, row),
            )
            grades[item_id] = asked.grade(item_id, *texts, line["shown"], again=number < config.repeats)
            progress.update(number + 1, len(order), "replies graded")
        now = asked.now
    lines = [grades[line["id"]] for line in answers]
    write_jsonl(out / "grades.jsonl", lines)
    errors = sum(line["status"] != "ok" for line in lines)
    if lines and errors == len(lines):
        raise StepFailed(f"{config.task}: the judge graded none of {errors} replies; first: {lines[0]['error']}")
    return {"judge": config.judge.label, "n": len(lines), "errors": errors, "asked_now": now}


def refuse_itself(config: Judged, inputs: Inputs) -> None:
    """InputError where the judge's file is the very file that it would grade: no such grade ranks anything."""
    if isinstance(config.judge, LocalJudge) and config.system not in ("A", "B"):
        artifact, path = gguf_files(config.system, inputs)[0]
        if file_sha256(artifact, path) == config.judge.sha256:
            raise InputError(f"the judge is {config.system} itself", "another model as benchmark.judge")


class Asked:
    """The judge, opened at the first question that the store cannot answer."""

    def __init__(self, config: Judged, store: SampleStore, machine: Machine) -> None:
        self._config, self._store, self._machine = config, store, machine
        judge = config.judge
        identity = judge.sha256 if isinstance(judge, LocalJudge) else [judge.url, judge.model]
        self._identity = hash_json([judge.kind, identity, config.reply_tokens])
        self._judge: Judge | None = None
        self.now = 0

    def __enter__(self) -> "Asked":
        return self

    def __exit__(self, *error: object) -> None:
        if self._judge is not None:
            self._judge.close()

    def grade(self, item_id: str, prompt: str, reference: str, aspect: str, answer: str, *, again: bool) -> Line:
        """The line of one item."""
        if not answer:
            return {"id": item_id, "grade": 1, "reason": "empty", "status": "ok", "error": ""}
        asked = question(prompt, reference, aspect, answer)
        line: dict[str, Any] = {"id": item_id, "reason": "", "status": "error"}
        try:
            reply = self._reply(asked, "first")
            grade = grade_in(reply)
            if grade is None:
                return {**line, "error": NO_GRADE}
            line |= {"grade": grade, "reason": reason_in(reply), "status": "ok", "error": ""}
            second = grade_in(self._reply(asked, "second")) if again else None
        except StepFailed as error:
            return {**line, "status": "error", "error": str(error)}
        return line if second is None else {**line, "again": second}

    def _reply(self, asked: str, time: str) -> str:
        key = hash_json([self._identity, asked, time])
        reply = self._store.get(key)
        if reply is None:
            if self._judge is None:
                self._judge = open_judge(self._config.judge, self._machine)
            reply = self._judge.ask(asked, self._config.reply_tokens)
            self._store.put({key: (reply, Cost())})
            self.now += 1
        return str(reply)
