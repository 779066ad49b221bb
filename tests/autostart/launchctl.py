"""A stand-in for macOS' launchctl: agents are loaded, shown and unloaded by domain and label.

python launchctl.py FOLDER bootstrap|bootout|print|print-disabled ARGUMENTS...
"""

import plistlib
import sys
from pathlib import Path

NOT_FOUND = 113


def main(folder: Path, verb: str, domain: str, path: str = "") -> int:
    """Exit 0 done, else launchctl's own numbers."""
    if verb == "bootstrap":
        loaded = folder / plistlib.loads(Path(path).read_bytes())["Label"]
        if loaded.exists():
            return 5
        loaded.write_text(domain, encoding="utf-8")
        return 0
    if verb == "print-disabled":
        for off in folder.glob("*.off"):
            sys.stdout.write(f'\t\t"{off.stem}" => disabled\n')
        return 0
    loaded = folder / domain.rpartition("/")[2]
    if not loaded.exists():
        return NOT_FOUND
    if verb == "bootout":
        loaded.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
