"""Which replies a row may teach. A row keeps one only in the thinking format, with the row's own class in it.

- A reply that is in that format, and names the row's class, stays as it is.
- A plain one becomes `<final>` of such a reply where the class is ALLOW. Under any other class nobody has said that it
  declines, so it is not learnt; the same where it holds tags, or names another class.
- A picture or a sound with an `answer` has that as `<final>`, as the benchmark asks for it.

A row without a usable reply still has its class: see `run` for where it goes.
"""

from so8t.labels import LABEL_TOKENS, Label
from so8t.records import Record
from so8t.thinking import TAGS, parse, render

# As in the replies that come with the package: (think-task, think-policy).
FRAME = {"ja": ("依頼を読む。", "答える。"), "en": ("Read the request.", "Answer.")}
MARKS = (*TAGS, *LABEL_TOKENS)


def usable(record: Record) -> Record:
    """The labelled row with a reply that may be learnt, or with none."""
    said = record.response
    if (reply := parse(said)) is not None:
        return record if reply.label == record.label else record.with_(response="")
    final = (record.answer if record.modality != "text" else "") or said
    if not final.strip() or record.label != Label.ALLOW or any(mark in said + final for mark in MARKS):
        return record.with_(response="") if said else record
    task, policy = FRAME[record.language]
    return record.with_(response=render(task, Label.ALLOW, "", policy, final.strip()))
