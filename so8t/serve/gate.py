"""What of a reply may leave: the text of a well-formed `<final>`, and nothing before the whole reply is known to be so.

Not even the beginning of a final may go earlier: one that is never closed can run on into thinking, and only its end
tells. Reading along as the reply is written is for ending at once what can no longer become well-formed.
"""

import re
from dataclasses import dataclass

from so8t.labels import LABEL_TOKENS, Label
from so8t.thinking import IMAGE_TOKEN, TAGS, parse

_TAG = re.compile("|".join(re.escape(tag) for tag in TAGS))
_BEGINNINGS = frozenset(tag[:length] for tag in TAGS for length in range(1, len(tag)))
_LONGEST = max(map(len, TAGS)) - 1
_FORBIDDEN_IN_FINAL = (*LABEL_TOKENS, IMAGE_TOKEN)


@dataclass(frozen=True)
class Verdict:
    """A finished reply. `final` is empty unless it is well-formed; `label` is the class that it named, or None."""

    final: str
    label: Label | None
    truncated: bool = False  # it ended before its last closer

    @property
    def well_formed(self) -> bool:
        """Whether there is a final text that may leave."""
        return bool(self.final)


def judge(text: str) -> Verdict:
    """The verdict on a whole reply; a class token or image marker in the final makes it malformed too."""
    reply = parse(text)
    if reply is not None and not any(token in reply.final for token in _FORBIDDEN_IN_FINAL):
        return Verdict(reply.final.strip(), reply.label)
    found = _TAG.findall(text)
    return Verdict("", None, truncated=len(found) < len(TAGS) and found == list(TAGS[: len(found)]))


class Gate:
    """Takes a reply piece by piece, cut anywhere; `close` gives the verdict, the same for every way of cutting."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._held = ""  # not yet known to be text or tag
        self._tags = 0  # seen, all in order
        self.broken = False
        """Whether the reply can no longer become well-formed."""

    def feed(self, piece: str) -> None:
        """Take the next piece."""
        self._pieces.append(piece)
        self._held += piece
        while not self.broken and (match := _TAG.search(self._held)):
            self._read(self._held[: match.start()])
            self._held = self._held[match.end() :]
            self.broken |= self._tags == len(TAGS) or match[0] != TAGS[self._tags]
            self._tags += 1
        kept = _possible_beginning(self._held)
        self._read(self._held[: len(self._held) - kept])
        self._held = self._held[len(self._held) - kept :]

    def close(self) -> Verdict:
        """The reply has ended."""
        return judge("".join(self._pieces))

    def thinking(self) -> str:
        """What stands before the final; of a reply without one, all of it. It never leaves."""
        return "".join(self._pieces).split("<final>", 1)[0]

    def _read(self, text: str) -> None:
        """Text between two tags; between a closer and the next part there is none."""
        self.broken |= self._tags % 2 == 0 and bool(text.strip())


def _possible_beginning(text: str) -> int:
    """Length of the longest end of `text` that a tag could begin with."""
    for length in range(min(_LONGEST, len(text)), 0, -1):
        if text[-length:] in _BEGINNINGS:
            return length
    return 0
