"""Makes bigfiles, and spoils them in the ways that a database can.

usage: victims.py HOST PORT BLKSIZE

It reads lines and answers each with one: `new` with the oid of a bigfile of two blocks and the tid of its commit, `HOW OID`
with the tid of the commit that spoilt it. HOW is deleted, blksize, table, state or block (its first one).
"""

import sys

import transaction
import ZODB
from BTrees.LOBTree import LOBTree
from ZEO.ClientStorage import ClientStorage
from ZODB.Connection import TransactionMetaData

from wendelin.bigfile.file_zodb import ZBigFile, ZBlk0

JUNK = b'\x80\x02N.'


def raw(stor, oid, data):
    """Commits a record as it is; None deletes the object."""
    serial = stor.load(oid)[1]
    txn = TransactionMetaData()
    stor.tpc_begin(txn)
    if data is None:
        stor.deleteObject(oid, serial, txn)
    else:
        stor.store(oid, serial, data, '', txn)
    stor.tpc_vote(txn)
    stor.tpc_finish(txn)


def main():
    host, port, blksize = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    stor = ClientStorage((host, port), wait_timeout=60)
    conn = ZODB.DB(stor).open()
    n = 0
    for line in sys.stdin:
        how, oid = (line.split() + [''])[:2]
        conn.sync()
        if how == 'new':
            n += 1
            f = ZBigFile(blksize)
            conn.add(f)
            conn.root()['victim'] = f
            for blk in range(2):
                f.set(blk, bytes([n % 255 + 1]) * blksize, ZBlk0)
            transaction.commit()
            print(f._p_oid.hex(), stor.lastTransaction().hex(), flush=True)
            continue
        oid = bytes.fromhex(oid)
        f = conn.get(oid)
        if how == 'blksize':
            f.blksize *= 2
            transaction.commit()
        elif how == 'table':
            f.blktab = LOBTree()
            transaction.commit()
        else:
            raw(stor, f.blktab[0]._p_oid if how == 'block' else oid, None if how == 'deleted' else JUNK)
        print(stor.lastTransaction().hex(), flush=True)


main()
