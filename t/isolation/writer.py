"""Commits to several growing bigfiles as fast as it can, and logs what every commit changed.

usage: writer.py DATAFS|zeo:HOST:PORT LOG BLKSIZE SEED BLOCKS [MNT]

Block b of file f written by commit n holds the 64-bit words ((n * 16 + f) * 1024 + b) * 65536 + i. A line
of the log is `TID f:b:n f:b:n ...`, n = 0 for a block that became a hole; it is written after the
commit. The first line is of the commit that makes the files; then their oids are printed. With MNT it waits
when a server there is AHEAD commits behind, as one that is slow on purpose can be.
"""

import random
import sys
import time

import numpy
import transaction
import ZODB
from ZEO.ClientStorage import ClientStorage
from ZODB.FileStorage import FileStorage

from wendelin.bigfile.file_zodb import ZBigFile, ZBlk0, ZBlk1

FILES = 3
AHEAD = 1000
BLOCKS = int(sys.argv[5])  # a file grows up to so many


def wait_for_server(mnt, tid):
    """Waits until head has come to tid. Where no server is there is nothing to wait for."""
    try:
        while open(mnt + '/head/at').read() < tid:
            time.sleep(0.01)
    except OSError:
        pass


def main():
    path, logname, blksize, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)
    log = open(logname, 'w')
    words = numpy.arange(blksize // 8, dtype='<u8')
    if path.startswith('zeo:'):
        host, port = path[4:].rsplit(':', 1)
        stor = ClientStorage((host, int(port)), wait_timeout=60)
    else:
        stor = FileStorage(path)
    db = ZODB.DB(stor)
    root = db.open().root()
    files = [ZBigFile(blksize) for _ in range(FILES)]
    root['files'] = files
    end = [6] * FILES
    n, tids = 1, []
    changes = {(f, b) for f in range(FILES) for b in range(end[f])}
    while True:
        done = []
        for f, b in sorted(changes):
            if n > 1 and b < end[f] - 1 and b in files[f].blktab and rng.random() < 0.05:
                files[f].hole(b)
                done.append('%d:%d:0' % (f, b))
                continue
            base = ((n * 16 + f) * 1024 + b) * 65536
            files[f].set(b, (words + numpy.uint64(base)).tobytes(), ZBlk1 if b % 2 else ZBlk0)
            done.append('%d:%d:%d' % (f, b, n))
        transaction.commit()
        tids.append(stor.lastTransaction().hex())
        log.write('%s %s\n' % (tids[-1], ' '.join(done)))
        log.flush()
        if len(sys.argv) > 6 and n % 100 == 0:
            wait_for_server(sys.argv[6], tids[-AHEAD:][0])
        if n == 1:
            print(' '.join(f._p_oid.hex() for f in files), flush=True)
        n += 1
        changes = set()
        for _ in range(rng.randint(1, 4)):
            f = rng.randrange(FILES)
            changes.add((f, rng.randrange(end[f])))
        if rng.random() < 0.1:
            f = rng.randrange(FILES)
            if end[f] < BLOCKS:
                changes.add((f, end[f]))
                end[f] += 1


main()
