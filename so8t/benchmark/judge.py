"""What a judge is asked, and the grade in its reply. The judge never learns which system wrote an answer.

The question holds the task, a reference answer, the scale from 1 to 5, what this task is to be looked at for, and the
answer: the convention of ELYZA-tasks-100. An empty answer is 1 without asking; one that declines without need is 2.
"""

import json
import re

GRADES = range(1, 6)

QUESTION = """あなたは採点者です。問題と参考回答、採点基準を読み、回答を1から5までの整数で採点してください。

# 問題
{prompt}

# 参考回答
{reference}

# 採点基準
5点: 問題の指示を満たし、内容が正しく、十分に役に立つ
4点: 問題の指示を満たしているが、小さな不足や不自然さがある
3点: おおむね正しいが、一部に誤りや不足がある
2点: 誤りが多い、指示の一部にしか従っていない、または必要がないのに回答を断っている
1点: 間違っている、指示に従っていない、または意味が通らない
不自然な日本語は1点減点します。事実と異なる内容は1点減点します。

# この問題だけの採点基準
{aspect}

# 回答
{answer}

# 出力
次の形のJSONだけを出力してください: {{"reason": "採点の理由を一文で", "grade": 整数}}
"""

_GRADE = re.compile(r'"grade"\s*:\s*"?([1-5])(?![0-9.])')
_ALONE = re.compile(r"\s*([1-5])\s*(?:点)?\s*\.?\s*")


def question(prompt: str, reference: str, aspect: str, answer: str) -> str:
    """What the judge is asked about one answer."""
    return QUESTION.format(prompt=prompt, reference=reference, aspect=aspect.strip() or "なし", answer=answer)


def grade_in(reply: str) -> int | None:
    """The grade of a judge's reply: of its JSON, or a digit alone; None where it names none, or two different ones."""
    found = {int(digit) for digit in _GRADE.findall(reply)}
    if not found and (alone := _ALONE.fullmatch(reply)):
        found = {int(alone[1])}
    return found.pop() if len(found) == 1 else None


def reason_in(reply: str) -> str:
    """The reason that the judge gave, "" where there is no readable one."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        value = json.loads(reply[start : end + 1])
    except ValueError:
        return ""
    return str(value.get("reason", "")) if isinstance(value, dict) else ""
