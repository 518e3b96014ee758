"""mtime.py: checks mtimes as Python clients compare them, each with the time of a transaction.

usage: mtime.py < "TID PATH" or "TID SEC NSEC", a line each; prints what is wrong
"""
import binascii
import os
import sys

from persistent.TimeStamp import TimeStamp


def tidtime(tid):
    return round(TimeStamp(binascii.unhexlify(tid)).timeTime(), 6)


n = 0
for line in sys.stdin:
    tid, where = line.rstrip("\n").split(" ", 1)
    if where.startswith("/"):
        mtime = os.stat(where).st_mtime
    else:
        sec, nsec = where.split()
        mtime = int(sec) + 1e-9 * int(nsec)
    n += 1
    if mtime != tidtime(tid):
        print("%s: @%s: mtime is %r, want %r" % (where, tid, mtime, tidtime(tid)))
print("%d checked" % n)
