"""Runs the `kdbench` command of its own arguments, and then others in forks of itself, which need import nothing.

Reads the arguments of each as a line of JSON; writes its process id when it begins, its status when it has ended.
"""

import json
import os
import sys
import threading

from kdbench.cli import main

try:
    main()
except SystemExit as end:
    if end.code:
        raise
assert threading.active_count() == 1, "a fork would lack the other threads"
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        sys.argv = ["kdbench", *json.loads(line)]
        main()
        sys.exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
