"""Which tests are for Windows alone, and which for the machine that runs a Windows under Wine."""

import sys

collect_ignore_glob = ["test_lane*.py"] if sys.platform == "win32" else ["test_on_*.py"]
