"""Makes a database with bigfiles and prints it as JSON, for decoders to be held against.

usage: write_commits.py PROTOCOL SEED KEYS

KEYS is how many keys the largest BTree is given, a third of which are deleted again; from some 35000
on it has three levels. The commits are what ZODB itself writes with that pickle protocol:
    {"commits": [{"tid": hex, "objs": {oid: hex record}}],
     "files":   [{"oid", "tid", "blksize", "size", "blocks": {blk: hex data}}],   each file at each tid
     "trees":   [{"oid", "tid", "items": [[key, oid]], "ranges": [[lo, hi, [keys]]]}]}
"""

import json
import random
import sys

import transaction
import ZODB
import ZODB.serialize
from BTrees.IOBTree import IOBTree
from BTrees.LOBTree import LOBTree
from ZODB.MappingStorage import MappingStorage

from wendelin.bigfile.file_zodb import ZBigFile, ZBlk, ZBlk0, ZBlk1, ZData

BLKSIZE = 20000


def change(rng, root):
    """Make one random change to the files."""
    f = root[rng.choice(['f', 'g'])]
    blk = rng.choice([0, 1, 2, 3, 70, 2**31 + 1, 2**40])
    if f.blktab and rng.random() < 0.2:
        f.hole(rng.choice(list(f.blktab)))
    elif f.blktab and rng.random() < 0.2:
        f.blktab[blk] = f.blktab[rng.choice(list(f.blktab))]
    elif f.blktab and rng.random() < 0.2:
        b = rng.choice(list(f.blktab))
        data = bytearray(f.get(b))
        data[rng.randrange(BLKSIZE)] = rng.randrange(256)
        f.set(b, bytes(data), type(f.blktab[b]))
    else:
        n = rng.choice([0, 1, 255, 256, 5000, BLKSIZE])
        data = bytearray(rng.randbytes(n))
        if n > 10:
            data[n // 2:] = bytes(n - n // 2)
            data[3 * n // 4] = 255
        f.set(blk, bytes(data), rng.choice([ZBlk0, ZBlk, ZBlk1]))


def fill(rng, tree, n, bits, chunk):
    """Give a tree n random keys, some of which are deleted again."""
    keys = [rng.randrange(-2**(bits - 1), 2**(bits - 1)) for _ in range(n)]
    keys += [-2**(bits - 1), 2**(bits - 1) - 1, 0, -1, 255, 256, 65535, 65536]
    for k in sorted(keys):  # in order: buckets stay half full, and the tree becomes deep sooner
        tree[k] = chunk
    for k in rng.sample(keys, n // 3):
        tree.pop(k, None)


def dump(db, tids, name, at):
    """Return a file as of at; every tid in hex."""
    conn = db.open(at=bytes.fromhex(at))
    f = conn.root().get(name)
    if f is None:
        conn.close()
        return None
    d = {'oid': f._p_oid.hex(), 'tid': at, 'size': f.size(), 'blksize': f.blksize,
         'blocks': {str(b): f.get(b).hex() for b in f.blktab}}
    conn.close()
    return d


def items(rng, tree, tid):
    """Return what a tree holds, and what it holds between random bounds."""
    keys = list(tree.keys())
    ranges = []
    for _ in range(30):
        lo, hi = sorted(rng.choice([rng.choice(keys), rng.randrange(-100, 100)]) + rng.randrange(-1, 2)
                        for _ in range(2))
        hi = min(hi, keys[min(len(keys) - 1, rng.randrange(len(keys)) + 50)])
        ks = [k for k in keys if lo <= k <= hi][:2000]
        ranges.append([lo, ks[-1] if ks else hi, ks])
    return {'oid': tree._p_oid.hex(), 'tid': tid, 'items': [[k, v._p_oid.hex()] for k, v in tree.items()],
            'ranges': ranges}


def main():
    ZODB.serialize._protocol = int(sys.argv[1])
    rng = random.Random(int(sys.argv[2]))
    storage = MappingStorage()
    db = ZODB.DB(storage)
    conn = db.open()
    root = conn.root()
    root['f'] = ZBigFile(BLKSIZE)
    root['g'] = ZBigFile(BLKSIZE)
    transaction.commit()
    for _ in range(25):
        for _ in range(rng.randrange(1, 4)):
            change(rng, root)
        transaction.commit()
    root['lo'], root['io'], root['small'], root['none'] = LOBTree(), IOBTree(), IOBTree(), LOBTree()
    fill(rng, root['lo'], int(sys.argv[3]), 64, ZData(b'x'))
    fill(rng, root['io'], 3000, 32, ZData(b'x'))
    fill(rng, root['small'], 9, 32, ZData(b'x'))
    transaction.commit()

    commits = []
    for t in storage.iterator():
        commits.append({'tid': t.tid.hex(), 'objs': {r.oid.hex(): r.data.hex() for r in t}})
    tids = [c['tid'] for c in commits]
    files = [dump(db, tids, name, at) for at in tids[1:] for name in ('f', 'g')]
    trees = [items(rng, root[name], tids[-1]) for name in ('lo', 'io', 'small')]
    json.dump({'commits': commits, 'files': [f for f in files if f], 'trees': trees}, sys.stdout)


main()
