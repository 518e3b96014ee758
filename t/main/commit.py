"""Commits to one bigfile as fast as it can: block b of commit n is filled with the number n.

usage: commit.py PATH COMMITS BLOCKS BLKSIZE

Prints the oid after the first commit, waits for a line on stdin, goes on, and prints "end". Commits are
counted from 1.
"""

import struct
import sys

import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from wendelin.bigfile.file_zodb import ZBigFile, ZBlk0, ZBlk1


def main():
    path, commits, blocks, blksize = sys.argv[1], *map(int, sys.argv[2:])
    db = ZODB.DB(FileStorage(path))
    root = db.open().root()
    f = root['f'] = ZBigFile(blksize)
    for n in range(commits + 1):
        for b in range(blocks):
            f.set(b, struct.pack('<Q', n + 1) * (blksize // 8), ZBlk1 if b % 2 else ZBlk0)
        transaction.commit()
        if n == 0:
            print(f._p_oid.hex(), flush=True)
            sys.stdin.readline()  # until the readers are there
    db.close()
    print('end', flush=True)


main()
