"""Commits to one bigfile, one commit for each line on stdin: blocks of commit n hold the number n.

usage: follow.py PATH BLOCKS BLKSIZE

Prints the oid after the first commit, which is number 1, and the number of every commit.
"""

import struct
import sys

import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from wendelin.bigfile.file_zodb import ZBigFile, ZBlk0, ZBlk1


def main():
    path, blocks, blksize = sys.argv[1], *map(int, sys.argv[2:])
    db = ZODB.DB(FileStorage(path))
    f = ZBigFile(blksize)
    db.open().root()['f'] = f
    n = 0
    while True:
        n += 1
        for b in range(blocks):
            f.set(b, struct.pack('<Q', n) * (blksize // 8), ZBlk1 if b % 2 else ZBlk0)
        transaction.commit()
        print(f._p_oid.hex() if n == 1 else n, flush=True)
        if not sys.stdin.readline():
            return


main()
