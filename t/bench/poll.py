"""Waits for commits as a Python process does that can only look at the file: by opening it again and again.

usage: poll.py DATABASE     each line of stdin is a tid in hex to wait for; for each, prints the time

A line "ready" is printed before each wait.
"""

import sys
import time

from ZODB.FileStorage import FileStorage

for line in sys.stdin:
    want = bytes.fromhex(line.strip())
    print("ready", flush=True)
    while True:
        fs = FileStorage(sys.argv[1], read_only=True)
        last = fs.lastTransaction()
        fs.close()
        if last >= want:
            break
    print(time.time_ns(), flush=True)
