"""A few rows of our own in the columns of each public data set."""

import json
from pathlib import Path

from so8t import durable
from so8t.artifacts import Artifact
from tests.benchmark.conftest import artifact

ROWS: dict[str, list[dict]] = {
    "mmlu": [
        {"question": "Two and two?", "subject": "school_sums", "choices": ["3", "4", "5", "6"], "answer": 1},
        {"question": "Warm star?", "subject": "the_sky", "choices": ["Sun", "Moon", "Mars", "Rain"], "answer": 0},
    ],
    "hellaswag": [
        {
            "activity_label": "Tea", "ctx_a": "A man boils water [title] Now", "ctx_b": "he", "label": "2",
            "endings": ["runs.", "sleeps [x] on.", "pours it into a cup of tea.", "sings."],
        }
    ],
    "arc_challenge": [
        {"question": "What melts ice?", "choices": {"text": ["cold", "heat", "dark"], "label": ["A", "B", "C"]}, "answerKey": "B"}
    ],
    "winogrande": [
        {"sentence": "Ken thanked Bob because _ had helped.", "option1": "Ken", "option2": "Bob", "answer": "2"},
        {"sentence": "_ was thanked by Ken.", "option1": "Bob", "option2": "Ann", "answer": "1"},
    ],
    "jcommonsenseqa": [
        {"question": "雨の日に使うものは？", **{f"choice{k}": word for k, word in enumerate(("傘", "皿", "靴", "机", "本"))}, "label": 0}
    ],
    "jcommonsensemorality": [
        {"sent": "人の財布を盗んだ", "label": "1"}, {"sent": "人の財布を届けた", "label": "0"},
    ],
    "gsm8k": [{"question": "Ann has 3 pens and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 1,007"}],
    "elyza_tasks_100": [
        {"input": f"{word}について一文で書いてください。", "output": f"{word}は良いものです。", "eval_aspect": f"{word}に触れていること"}
        for word in ("春", "海", "犬")
    ],
}  # fmt: skip


def questions(folder: Path, task: str, rows: list[dict] | None = None) -> Artifact:
    """The artifact of collect.questions for a task."""
    lines = [
        json.dumps({"id": f"q.jsonl-{n:06d}", "row": row}, ensure_ascii=False)
        for n, row in enumerate(ROWS[task] if rows is None else rows)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_text(folder / "items.jsonl", "\n".join(lines) + "\n")
    source = {"origin": "lab/questions@1", "licence": "mit", "evidence": "declared", "rows": len(lines), "files": []}
    durable.write_json(folder / "source.json", source)
    return artifact(folder, "collect.questions")
