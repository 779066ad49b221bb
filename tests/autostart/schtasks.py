"""A stand-in for Windows' schtasks.exe and whoami.exe, kept to what Task Scheduler is documented to do.

It reads UTF-16 alone, refuses a logon trigger for everybody, replaces the principal's name by a SID, adds a URI, leaves
out what equals its defaults, prints Japanese words in the code page of a console, and loses what that cannot hold.

    python schtasks.py FOLDER CODEPAGE schtasks|wine|whoami ARGUMENTS...
"""

import re
import sys
from pathlib import Path

SID = "S-1-5-21-111-222-333-1001"
USER = "DESKTOP-1\\tester"
DEFAULTS = ("<AllowHardTerminate>true</", "<AllowStartOnDemand>true</", "<Hidden>false</", "<WakeToRun>false</")


def main(folder: Path, page: str, program: str, *words: str) -> int:
    """Exit 0 done, 1 refused."""
    options = dict(zip(words, [*words[1:], ""], strict=True))

    def say(text: str, code: int = 0) -> int:
        sys.stdout.buffer.write(text.replace("\n", "\r\n").encode(page, "replace"))
        return code

    if program == "whoami":
        return say(f'"{USER.lower()}","{SID}"\n')
    if words[0] == "/query" and program == "wine":
        return 0
    if words[:2] == ("/query", "/fo"):
        names = ["Microsoft\\Windows\\Defrag", *sorted(path.stem for path in folder.glob("*.xml"))]
        return say("".join(f'"\\{name}","N/A","準備完了"\n' for name in names))
    path = folder / f"{options['/tn']}.xml"
    if words[0] == "/create":
        data = Path(options["/xml"]).read_bytes()
        if not data.startswith(b"\xff\xfe"):
            return say("エラー: タスク XML の形式が正しくありません。\n", 1)
        text = data.decode("utf-16")
        if path.exists() and "/f" not in words:
            return say("エラー: 既に存在します。\n", 1)
        if "<UserId>" not in text.partition("</LogonTrigger>")[0] or "HighestAvailable" in text:
            return say("エラー: アクセスが拒否されました。\n", 1)
        before, mark, principals = text.partition("<Principals>")
        text = before + mark + re.sub(r"<UserId>[^<]*<", f"<UserId>{SID}<", principals)
        text = re.sub(r"\n *(" + "|".join(map(re.escape, DEFAULTS)) + r")\w+>", "", text)
        text = text.replace("</RegistrationInfo>", f"<URI>\\{path.stem}</URI></RegistrationInfo>")
        path.write_text(text, encoding="utf-8")
        return say("成功\n")
    if not path.exists():
        return say("エラー: 指定されたファイルが見つかりません。\n", 1)
    if words[0] == "/delete":
        path.unlink()
        return say("成功\n")
    return say("\n" + path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
