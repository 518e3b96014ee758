"""Write databases with bigfiles in every form there is, and list what Python itself reads from them.

    matrix.py DIR

leaves in DIR, for each scenario, NAME.fs and NAME.json. The list has, for each transaction, what each
file holds as of it, read through a historical connection:

    [{"tid": tid, "files": {oid: null or {"blksize": n, "size": n, "blks": {block: sha256}}}}, ...]

null: the file does not exist as of that transaction. Blocks that are not listed are holes.
"""
import base64
import hashlib
import json
import os
import random
import shutil
import sys

import transaction
import ZODB
from persistent.TimeStamp import TimeStamp
from wendelin.bigfile.file_zodb import ZBigFile, ZBlk, ZBlk0, ZBlk1
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, u64


class Scenario:
    def __init__(self, directory, name, zlib=False):
        self.path = os.path.join(directory, name + '.fs')
        self.fs = stor = FileStorage(self.path)
        if zlib:
            from zc.zlibstorage import ZlibStorage
            stor = ZlibStorage(self.fs)
        self.db = ZODB.DB(stor)
        self.conn = self.db.open()
        self.root = self.conn.root()
        self.oids = []
        self.rnd = random.Random(name)

    def commit(self):
        transaction.commit()
        return self.fs.lastTransaction()

    def new(self, name, blksize):
        f = self.root[name] = ZBigFile(blksize)
        self.commit()
        self.oids.append(f._p_oid)
        return f

    def data(self, size):
        return self.rnd.getrandbits(8 * size).to_bytes(size, 'little') if size else b''

    def undo(self, tid=None):
        self.db.undo(base64.encodebytes(tid or self.fs.lastTransaction()).rstrip(b'\n'))
        return self.commit()

    def delete(self, obj):
        """Delete an object of the database, whoever refers to it."""
        t = TransactionMetaData()
        self.fs.tpc_begin(t)
        self.fs.deleteObject(obj._p_oid, obj._p_serial, t)
        self.fs.tpc_vote(t)
        self.fs.tpc_finish(t)
        self.conn.sync()

    def list(self, since=p64(0)):
        revs = []
        for txn in self.fs.iterator():
            if txn.tid >= since:
                files = {'%016x' % u64(oid): self.read(oid, txn.tid) for oid in self.oids}
                revs.append({'tid': '%016x' % u64(txn.tid), 'files': files})
        return revs

    def read(self, oid, tid):
        conn = self.db.open(transaction.TransactionManager(), before=p64(u64(tid) + 1))
        try:
            f = conn.get(oid)
            blks = {n: hashlib.sha256(f.get(n)).hexdigest() for n in f.blktab}
            return {'blksize': f.blksize, 'size': f.size(), 'blks': blks}
        except POSKeyError:
            return None
        finally:
            conn.close()

    def save(self, copy=None, since=p64(0)):
        """Write the list; copy: leave the database as it is now under another name, too."""
        path = self.path
        if copy:
            path = os.path.join(os.path.dirname(path), copy + '.fs')
            shutil.copy(self.path, path)
        with open(path[:-3] + '.json', 'w') as out:
            json.dump(self.list(since), out)

    def close(self):
        self.conn.close()
        self.db.close()


def mixed(s):
    """Every kind of block, holes, growth, shrink, undo, deletion, pack."""
    f, g = s.new('f', 4096 * 16), s.new('g', 4096)
    kinds = [ZBlk0, ZBlk1, ZBlk]
    for i in range(12):
        for _ in range(s.rnd.randint(1, 4)):
            f.set(s.rnd.randrange(20), s.data(s.rnd.choice([0, 1, 5000, 4096, 4096 * 16])), s.rnd.choice(kinds))
        g.set(i, s.data(4096), kinds[i % 3])
        s.commit()
    f.set(1, s.data(100) + bytes(30000) + s.data(100), ZBlk1)  # chunks that are not there
    f.set(1 << 40, b'far away')
    s.commit()
    f.set(1, s.data(100) + bytes(30000) + s.data(100), ZBlk1)  # one chunk changes
    first = s.commit()
    for n in list(f.blktab)[10:]:  # shrink
        f.hole(n)
    f.hole(next(iter(f.blktab)))
    s.commit()
    for n in range(15, 30):  # grow again
        f.set(n, s.data(2000), kinds[n % 2])
    s.commit()
    f.blktab[40] = f.blktab[15]  # one ZBlk at two places
    s.commit()
    f.set(40, s.data(77), type(f.blktab[40]))
    tid = s.commit()
    s.undo()
    s.undo()
    g.set(0, s.data(10), ZBlk0)
    s.commit()
    for n in list(g.blktab):  # emptied
        g.hole(n)
    s.commit()
    s.undo()
    big = s.new('big', 2 << 20)  # blocks of the usual size
    big.set(0, s.data(2 << 20), ZBlk0)
    big.set(2, s.data(2 << 20), ZBlk1)
    s.commit()
    s.delete(g)
    s.save(copy='mixed-unpacked')
    del s.root['g']
    s.commit()
    s.db.pack(TimeStamp(first).timeTime())
    s.save(copy='mixed-packed', since=tid)
    f.set(0, s.data(99), ZBlk1)
    s.commit()
    s.undo()
    for i in range(5):
        f.set(i, s.data(3000), kinds[i % 3])
        s.commit()
    s.undo()
    s.db.pack(TimeStamp(s.fs.lastTransaction()).timeTime())
    f.set(3, s.data(10), ZBlk0)
    last = s.commit()
    s.save(since=last)


def many(s):
    """Ten thousand blocks: trees of some depth, split and merged."""
    f = s.new('f', 256)
    for n in range(10000):
        f.set(n, b'%d' % n)
    s.commit()
    for n in range(3000, 6000):
        f.hole(n)
    s.commit()
    for n in range(4000, 4100):
        f.set(n, s.data(256), ZBlk1 if n % 10 == 0 else ZBlk0)
    s.commit()
    s.undo()
    s.save()


def main(directory):
    scenarios = [(mixed, 'mixed', False), (many, 'many', False)]
    try:
        import zc.zlibstorage  # noqa: F401: is it there?
        scenarios.append((mixed, 'mixed-zlib', True))
    except ImportError:
        pass
    for scenario, name, zlib in scenarios:
        target = os.path.join(directory, name)
        os.mkdir(target)
        s = Scenario(target, name, zlib)
        scenario(s)
        s.close()


if __name__ == '__main__':
    main(sys.argv[1])
