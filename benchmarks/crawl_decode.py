"""How many Japanese pages are read as they were written, and how fast? Peers: chardet and charset_normalizer.

    pip install chardet charset-normalizer
    SO8T_REALDATA=folder python -m benchmarks.crawl_decode

Own pages are one text in each encoding, with and without a declaration, in three lengths. Where SO8T_REALDATA has
a folder jp-encodings (folders named for the true encoding), those are read as well. Right is: the very text. All
tools get the same bytes and no HTTP header, one after the other, one thread; speed is by CPU time.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from so8t.collect.web.decode import Undecodable, codec_of, decode

SENTENCE = "駅の近くで古い時計を修理していた職人は、①から③までの手順を㈱髙山の手帳に書いた。ｶﾅも混じる。"
PLAIN = "駅の近くで古い時計を修理していた職人は、手順を赤い手帳に書いた。カナも混じる。"
# Codec, the label that pages give, the text that it can hold.
WRITTEN = (
    ("utf-8", "UTF-8", SENTENCE), ("cp932", "Shift_JIS", SENTENCE), ("euc_jp", "EUC-JP", PLAIN),
    ("iso2022_jp", "ISO-2022-JP", PLAIN), ("euc_jis_2004", "EUC-JP", PLAIN + "①"),
)  # fmt: skip
FOLDERS = {
    "CP932": ("cp932",),
    "SHIFT_JIS": ("cp932",),
    "EUC-JP": ("euc_jp", "euc_jis_2004"),
    "iso-2022-jp": ("iso2022_jp",),
}
ROUNDS = 3


def own_pages() -> Iterator[tuple[bytes, frozenset[str]]]:
    """(bytes, the texts that are right) of the pages made here."""
    for codec, label, text in WRITTEN:
        for repeats in (1, 20, 400):
            for head in ("", f'<meta charset="{label}">'):
                page = f"<html><head>{head}</head><body>{text * repeats}</body></html>"
                yield page.encode(codec), frozenset({page})


def real_pages(root: Path) -> Iterator[tuple[bytes, frozenset[str]]]:
    """The same of pages in folders named for their encoding."""
    for folder, codecs in FOLDERS.items():
        for path in sorted((root / folder).glob("*")):
            data = path.read_bytes()
            texts = (_strictly(data, codec) for codec in codecs)
            yield data, frozenset(text for text in texts if text is not None)


def _strictly(data: bytes, codec: str | None) -> str | None:
    try:
        return data.decode(codec) if codec else None
    except (UnicodeDecodeError, LookupError):
        return None


def ours(data: bytes) -> str | None:
    """The crawler's chain."""
    try:
        return decode(data).text
    except Undecodable:
        return None


def by_chardet(data: bytes) -> str | None:
    """chardet's guess, its name read as the web reads it: Python's own shift_jis refuses what such pages have."""
    import chardet

    found = chardet.detect(data)["encoding"]
    return _strictly(data, _as_the_web(found))


def by_charset_normalizer(data: bytes) -> str | None:
    """charset_normalizer's best match, its name read likewise."""
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    return _strictly(data, _as_the_web(best.encoding)) if best is not None else None


def _as_the_web(name: str | None) -> str | None:
    return "cp932" if name and codec_of(name.lower().replace("_", "-")) == "cp932" else name


def measure(name: str, read: Callable[[bytes], str | None], pages: list[tuple[bytes, frozenset[str]]]) -> float:
    """Print right/total and MB/s of CPU time; give the speed."""
    right = sum(read(data) in texts for data, texts in pages)
    started = time.process_time()
    for _ in range(ROUNDS):
        for data, _texts in pages:
            read(data)
    seconds = time.process_time() - started
    speed = ROUNDS * sum(len(data) for data, _ in pages) / seconds / 1e6
    print(f"  {name:20} {right:3}/{len(pages)} right  {speed:8.1f} MB/s")
    return speed


def main() -> None:
    """Both collections, all tools, and the ratios."""
    real = Path(os.environ.get("SO8T_REALDATA", "-")) / "jp-encodings"
    for title, pages in (("own pages", list(own_pages())), ("jp-encodings", list(real_pages(real)))):
        if not pages:
            print(f"{title}: not there")
            continue
        print(f"{title}: {sum(len(data) for data, _ in pages) / 1e6:.2f} MB")
        chain = measure("so8t", ours, pages)
        for name, read in (("chardet", by_chardet), ("charset_normalizer", by_charset_normalizer)):
            print(f"  so8t is {chain / measure(name, read, pages):.1f} times as fast as {name}")


if __name__ == "__main__":
    main()
