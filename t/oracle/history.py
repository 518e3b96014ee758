"""Reads every revision of bigfiles from FileStorages, through ZODB and BTrees and nothing else.

stdin, a line each:  {"path": file, "files": [oid, ...]}
stdout, a line each: [{"tid", "oids": [changed], "files": {oid: {"blktab", "blksize", "blocks"}}}, ...]

One entry for each transaction; blocks is {number: [ZBlk, its serial]}. Oids and tids are 16 hex digits.
"""
import json
import sys

import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, u64


def hex16(b):
    return '%016x' % u64(b)


def block(storage, zblk, tid):
    """A block's ZBlk and the serial it has as of tid."""
    serial = storage.loadBefore(zblk._p_oid, p64(u64(tid) + 1))[1]
    return [hex16(zblk._p_oid), hex16(serial)]


def files_at(conn, storage, oids, tid):
    files = {}
    for oid in oids:
        try:
            f = conn.get(p64(int(oid, 16)))
            f._p_activate()
        except POSKeyError:
            continue  # not made yet
        files[oid] = {
            'blktab': hex16(f.blktab._p_oid), 'blksize': f.blksize,
            'blocks': {str(n): block(storage, zblk, tid) for n, zblk in f.blktab.items()},
        }
    return files


def history(path, oids):
    storage = FileStorage(path, read_only=True)
    db = ZODB.DB(storage)
    out = []
    for txn in storage.iterator():
        conn = db.open(at=txn.tid)
        out.append({'tid': hex16(txn.tid), 'oids': [hex16(r.oid) for r in txn],
                    'files': files_at(conn, storage, oids, txn.tid)})
        conn.close()
    db.close()
    return out


for line in sys.stdin:
    given = json.loads(line)
    sys.stdout.write(json.dumps(history(given['path'], given['files'])) + '\n')
    sys.stdout.flush()
