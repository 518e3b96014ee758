"""A writer of FileStorage databases that does what it is told, one JSON object a line.

Each request names an operation and gets one line of JSON back, {"error": ...} if it failed. Records
are raw and travel as base64, oids and tids as 16 hex digits. Several databases may be open at once.

    {"op": "open", "db": "x", "path": "/tmp/x.fs", "zlib": false}    -> {"used_index": true}
    {"op": "commit", "db": "x", "objs": {oid: record or null}}       null deletes; -> {"tid": tid}
    {"op": "vote", "db": "x", "objs": ...}                           written with status 'c', not finished
    {"op": "finish", "db": "x"} / {"op": "abort", "db": "x"}         what becomes of it
    {"op": "undo", "db": "x", "tid": tid}                            -> {"tid": tid}
    {"op": "pack", "db": "x", "tid": tid}                            as of tid; no object is collected
    {"op": "hammer", "db": "x", "oid": oid, "n": 200}                n commits in a row -> {"tids": [...]}
    {"op": "load", "db": "x", "oid": oid, "at": tid}                 -> {"data": record, "serial": tid} or {}
    {"op": "iterate", "db": "x"}                                     -> {"txns": [[tid, [oid, ...]], ...]}
    {"op": "save_index"} / {"op": "close"}
"""
import base64
import json
import sys
import time

from persistent.TimeStamp import TimeStamp
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, u64


class Db:
    def __init__(self, path, zlib=False):
        self.fs = self.stor = FileStorage(path)
        self.zlib = zlib
        if zlib:
            from zc.zlibstorage import ZlibStorage
            self.stor = ZlibStorage(self.fs)
        self.voted = None

    def serial(self, oid):
        """The tid of the last record of oid, a deletion included."""
        pos = self.fs._index.get(oid)
        return self.fs._read_data_header(pos, oid).tid if pos else p64(0)

    def vote(self, objs):
        t = TransactionMetaData(u'somebody', u'a transaction of zwriter.py', {'n': 1})
        self.stor.tpc_begin(t)
        try:
            for oid, data in sorted(objs.items()):
                oid, serial = unhex(oid), self.serial(unhex(oid))
                if data is None:
                    self.stor.deleteObject(oid, serial, t)
                else:
                    self.stor.store(oid, serial, base64.b64decode(data), '', t)
            self.stor.tpc_vote(t)
        except Exception:
            self.stor.tpc_abort(t)
            raise
        return t

    def commit(self, objs):
        return self.stor.tpc_finish(self.vote(objs))

    def undo(self, tid):
        t = TransactionMetaData()
        self.stor.tpc_begin(t)
        try:
            self.stor.undo(base64.encodebytes(tid).rstrip(b'\n'), t)
            self.stor.tpc_vote(t)
        except Exception:
            self.stor.tpc_abort(t)
            raise
        return self.stor.tpc_finish(t)


def hex16(b):
    return '%016x' % u64(b)


def unhex(s):
    return p64(int(s, 16))


def pack(fs, tid):
    """Pack as of tid and keep every object that was there.

    Without garbage collection FileStorage forgets to keep what later undo records point to, and
    fails; so let the root refer to everything.
    """
    t = TimeStamp(tid).timeTime()
    stop = TimeStamp(*time.gmtime(t)[:5] + (t % 60,)).raw()  # pack() takes a time, and rounds
    live = []
    for oid in fs._index:
        try:
            if fs.loadBefore(oid, p64(u64(stop) + 1)):
                live.append(oid)
        except POSKeyError:
            pass
    todo = [live]
    fs.pack(t, lambda record, oids=None: todo.pop() if todo else [])


def handle(dbs, r):
    op = r['op']
    if op == 'open':
        db = dbs[r['db']] = Db(r['path'], r.get('zlib', False))
        return {'used_index': bool(db.fs._used_index)}
    db = dbs[r['db']]
    if op == 'commit':
        return {'tid': hex16(db.commit(r['objs']))}
    if op == 'vote':
        db.voted = db.vote(r['objs'])
        return {}
    if op == 'finish':
        return {'tid': hex16(db.stor.tpc_finish(db.voted))}
    if op == 'abort':
        db.stor.tpc_abort(db.voted)
        return {}
    if op == 'undo':
        return {'tid': hex16(db.undo(unhex(r['tid'])))}
    if op == 'pack':
        pack(db.fs, unhex(r['tid']))
        return {}
    if op == 'hammer':
        tids = []
        for i in range(r['n']):
            data = base64.b64encode(b'%08d' % i * 512).decode()
            tids.append(hex16(db.commit({r['oid']: data})))
        return {'tids': tids}
    if op == 'load':
        try:
            x = db.stor.loadBefore(unhex(r['oid']), p64(int(r['at'], 16) + 1))
        except POSKeyError:
            x = None
        if x is None:
            return {}
        return {'data': base64.b64encode(x[0]).decode(), 'serial': hex16(x[1])}
    if op == 'iterate':
        it = db.fs.iterator()
        return {'txns': [[hex16(t.tid), sorted({hex16(rec.oid) for rec in t})] for t in it]}
    if op == 'save_index':
        db.fs._save_index()
        return {}
    if op == 'close':
        dbs.pop(r['db']).stor.close()
        return {}
    raise ValueError('unknown operation %r' % op)


def main():
    dbs = {}
    for line in sys.stdin:
        try:
            answer = handle(dbs, json.loads(line))
        except Exception as e:
            answer = {'error': '%s: %s' % (type(e).__name__, e)}
        sys.stdout.write(json.dumps(answer) + '\n')
        sys.stdout.flush()


if __name__ == '__main__':
    main()
