"""Lines typed in a terminal.

Guards against a Ctrl-C that comes just after the prompt and is seen only with the next key.
"""

from __future__ import annotations

import sys

from tests.longreel.commands import in_terminal

TIMES = 300
PROGRAM = """
from longreel.typed import typed_line
n = 0
while True:
    try:
        print("typed", repr(typed_line(f"{n}? ")))
    except KeyboardInterrupt:
        n += 1
    except EOFError:
        break
print("ended")
"""


def test_no_ctrl_c_is_lost() -> None:
    with in_terminal([sys.executable, "-c", PROGRAM]) as shown:
        for n in range(TIMES):
            shown.wait_for(f"{n}? ")
            shown.type("\x03")
        shown.wait_for(f"{TIMES}? ")
        shown.type("words\n")
        shown.wait_for("typed 'words'")
        shown.type("\x04")
        assert shown.wait() == 0, shown.shown
        assert shown.shown.endswith("ended\r\n")
