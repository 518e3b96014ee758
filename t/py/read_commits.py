"""Reads a database given as JSON through Python ZODB, and prints what it finds in it.

stdin:  {"commits": [{"tid": hex, "objs": {oid: hex record}}], "files": [oid]}
stdout: [{"oid", "tid", "size", "blocks": {blk: hex data}}]   each file at each tid at which it exists

Every BTree is checked for its inner consistency by the package BTrees itself.
"""

import json
import sys

import ZODB
from BTrees.check import check
from ZODB.Connection import TransactionMetaData
from ZODB.MappingStorage import MappingStorage
from ZODB.POSException import POSKeyError

from wendelin.bigfile.file_zodb import ZBlk1


def store(storage, commits):
    """Write the commits with the tids they have."""
    serials = {}
    for c in commits:
        t = TransactionMetaData()
        tid = bytes.fromhex(c['tid'])
        storage.tpc_begin(t, tid)
        for oid, data in c['objs'].items():
            storage.store(bytes.fromhex(oid), serials.get(oid, bytes(8)), bytes.fromhex(data), '', t)
            serials[oid] = tid
        storage.tpc_vote(t)
        storage.tpc_finish(t)


def verify(tree):
    """Check one BTree."""
    tree._check()
    check(tree)


def main():
    given = json.load(sys.stdin)
    storage = MappingStorage()
    store(storage, given['commits'])
    db = ZODB.DB(storage)
    out = []
    for c in given['commits']:
        conn = db.open(at=bytes.fromhex(c['tid']))
        for oid in given['files']:
            try:
                f = conn.get(bytes.fromhex(oid))
            except POSKeyError:
                continue
            verify(f.blktab)
            for zblk in f.blktab.values():
                if isinstance(zblk, ZBlk1):
                    verify(zblk.chunks)
            out.append({'oid': oid, 'tid': c['tid'], 'size': f.size(),
                        'blocks': {str(b): f.get(b).hex() for b in f.blktab}})
        conn.close()
    json.dump(out, sys.stdout)


main()
