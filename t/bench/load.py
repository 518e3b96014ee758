"""Loads all blocks of a bigfile through ZODB and prints how many seconds that took.

usage: load.py DATABASE OID
"""

import sys
import time

import ZODB
from ZODB.FileStorage import FileStorage

db = ZODB.DB(FileStorage(sys.argv[1], read_only=True), cache_size=10)
f = db.open().get(bytes.fromhex(sys.argv[2]))
began = time.time()
n = 0
for zblk in f.blktab.values():
    n += len(zblk.get())
    zblk._p_deactivate()
print(time.time() - began)
assert n > 0
