"""Writes and reads one ZBigFile in a FileStorage, a ZEO server, a NEO cluster or a RelStorage database.

usage: bigfile.py make STORAGE BLOCKS     makes root['f'] of blocks of 2 MiB, prints its oid
       bigfile.py set STORAGE BLK TEXT    commits a block of that text, prints the tid
       bigfile.py time STORAGE            reads all blocks, prints the seconds that took and their SHA-256
       bigfile.py commits STORAGE         for every line read: commits and prints the tid at once
       bigfile.py stamp STORAGE SEED [PAUSE]
                                          makes root['f'] of 16 small blocks and commits changes of them at
                                          random, with up to PAUSE seconds (0.02) between commits, until stdin
                                          ends; prints the oid, then a line a commit: tid blk=counter ..., a
                                          counter of 0 being a hole. A line read has it close the database, print
                                          "paused" and wait for another line

STORAGE is file:PATH, zeo:HOST:PORT, postgresql:DSN (as libpq wants it), or
neo:PROTOCOL:CLUSTER:HOST:PORT,...[:CA:CERT:KEY].
"""
import hashlib
import os
import random
import select
import sys
import time

import transaction
from wendelin.bigfile.file_zodb import ZBigFile, ZBlk0, ZBlk1
from ZODB.DB import DB
from ZODB.utils import u64

BLKSIZE = 2 << 20


def opened(storage):
    kind, _, where = storage.partition(':')
    if kind == 'file':
        from ZODB.FileStorage import FileStorage
        return DB(FileStorage(where))
    if kind == 'zeo':
        from ZEO.ClientStorage import ClientStorage
        host, _, port = where.rpartition(':')
        return DB(ClientStorage((host, int(port)), wait=True, wait_timeout=60))
    if kind == 'neo':
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../neo/pyneo'))
        from storage import opened as neo
        return DB(neo(where))
    from relstorage.adapters.postgresql import PostgreSQLAdapter
    from relstorage.options import Options
    from relstorage.storage import RelStorage
    options = Options(keep_history=True, driver='psycopg2')
    return DB(RelStorage(PostgreSQLAdapter(dsn=where, options=options), options=options))


def hex16(b):
    return '%016x' % u64(b)


def make(root, blocks):
    f = root['f'] = ZBigFile(BLKSIZE)
    transaction.commit()
    for blk in range(int(blocks)):
        f.set(blk, os.urandom(BLKSIZE))
        transaction.commit()
    print(hex16(f._p_oid))


def set_(root, blk, text):
    f = root['f']
    f.set(int(blk), text.encode())
    transaction.commit()
    print(hex16(f.blktab[int(blk)]._p_serial))


def time_(root):
    f = root['f']
    size = f.size() // BLKSIZE
    seconds, digest = 0, hashlib.sha256()
    for blk in range(size):
        t = time.perf_counter()
        data = f.get(blk)
        seconds += time.perf_counter() - t
        digest.update(data)
        f._p_jar.cacheMinimize()
    print(seconds, digest.hexdigest())


def commits(root):
    f = root['f']
    for i, _ in enumerate(sys.stdin):
        f.set(0, b'%d' % i)
        transaction.commit()
        print(hex16(f.blktab[0]._p_serial), flush=True)


def stamp(storage, seed, pause='0.02'):
    rnd = random.Random(int(seed))
    root = opened(storage).open().root()
    root['f'] = ZBigFile(16384)
    counter = 0
    changes = {blk: ZBlk0 for blk in range(16)}
    while True:
        line, counter = change(root['f'], changes, counter)
        root['counter'] = counter  # something whose serial tells the tid
        transaction.commit()
        if counter == 16:
            print(hex16(root['f']._p_oid))
        print(hex16(root._p_serial), *line, flush=True)
        if select.select([sys.stdin], [], [], rnd.random() * float(pause))[0]:
            close(root)
            if not sys.stdin.readline():
                return
            print('paused', flush=True)
            if not sys.stdin.readline():
                return
            root = opened(storage).open().root()
        # the last block is never a hole: the size stays
        changes = {blk: rnd.choice([ZBlk0, ZBlk0, ZBlk1, None if blk < 15 else ZBlk0])
                   for blk in rnd.sample(range(16), rnd.randint(1, 3))}


def change(f, changes, counter):
    """Fills blocks, or makes holes of them; tells of it as stamp prints it, and how far it counted."""
    line = []
    for blk, kind in sorted(changes.items()):
        counter += 1
        if kind is None:
            if f.blktab.has_key(blk):
                f.hole(blk)
            line.append('%d=0' % blk)
            continue
        f.set(blk, counter.to_bytes(8, 'little') * (16384 // 8), kind)
        line.append('%d=%d' % (blk, counter))
    return line, counter


def close(root):
    transaction.abort()
    db = root._p_jar.db()
    root._p_jar.close()
    db.close()


def main():
    what, storage, *args = sys.argv[1:]
    if what == 'stamp':
        stamp(storage, *args)
        return
    root = opened(storage).open().root()
    {'make': make, 'set': set_, 'time': time_, 'commits': commits}[what](root, *args)
    close(root)


main()
