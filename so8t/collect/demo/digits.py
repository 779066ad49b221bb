"""The 1,797 handwritten digits of scikit-learn: 8x8 grey scans, 0-9.

They are the test part of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998),
which UCI offers under CC BY 4.0; so the source passes the gate only where the config accepts that licence.
"""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from so8t.collect.demo.replies import media_reply
from so8t.collect.gathered import Gathered
from so8t.labels import Label
from so8t.records import Record

LICENCE = "cc-by-4.0"
ATTRIBUTION = "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998"
WHITE = 16  # brightest value of the scans
PROMPTS = {
    "ja": (
        "この数字は何ですか。",
        "画像の数字を一つ答えてください。",
        "何の数字が書かれていますか。",
        "手書きの数字を読んでください。",
    ),
    "en": (
        "Which digit is this?",
        "Read the digit in the picture.",
        "What number is written here?",
        "Name the handwritten digit.",
    ),
}


def gather(source: str) -> Gathered:
    """All digits as rows, Japanese and English in turn; `media` is an 8x8 grey PNG."""
    digits = load_digits()
    records = []
    for row, (scan, value) in enumerate(zip(digits.images, digits.target, strict=True)):
        language = ("ja", "en")[row % 2]
        answer = str(int(value))
        records.append(
            Record(
                id=f"{source}-{row:05d}",
                modality="image",
                language=language,
                prompt=PROMPTS[language][row // 2 % len(PROMPTS[language])],
                response=media_reply("image", language, "digit", answer),
                answer=answer,
                category="digit",
                label=int(Label.ALLOW),
                label_source="human",
                label_confidence=1.0,
                media=_png(scan),
                media_type="image/png",
                file="sklearn.datasets.load_digits",
                row=row,
                licence=LICENCE,
                licence_evidence="UCI Machine Learning Repository, dataset 80: CC BY 4.0",
            )
        )
    return Gathered(records, evidence={"attribution": ATTRIBUTION})


def _png(scan: "np.ndarray") -> bytes:
    grey = np.round(np.asarray(scan) * (255 / WHITE)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey, mode="L").save(buffer, format="PNG")
    return buffer.getvalue()
