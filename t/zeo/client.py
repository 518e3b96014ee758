"""A ZEO client that does what it is told: one JSON object a line in, one out.

It is the other side of the tests of the Go client: the writer, and the one whose answers count.
Bytes travel as base64. argv: address, storage name, TLS certificates (three paths) or nothing.
"""
import base64
import json
import ssl
import sys
import time

from transaction import TransactionManager
from ZEO.ClientStorage import ClientStorage
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import maxtid, p64
from ZODB.Connection import TransactionMetaData


def b64(b):
    return None if b is None else base64.b64encode(b).decode()


def unb64(s):
    return base64.b64decode(s)


class Client:
    def __init__(self, addr, name, certs):
        host, sep, port = addr.rpartition(':')
        a = (host, int(port)) if sep and '/' not in addr else addr
        kw = {}
        if certs:
            ca, cert, key = certs
            ctx = ssl.create_default_context(cafile=ca)
            ctx.load_cert_chain(cert, key)
            kw = dict(ssl=ctx, ssl_server_hostname='localhost')
        self.s = ClientStorage(a, storage=name, wait=True, wait_timeout=60, cache_size=1 << 20, **kw)

    def head(self):
        return {'tid': self.s.lastTransaction().hex()}

    def serial(self, oid):
        """What a store of oid must name: what is loaded, or else what the history ends with."""
        try:
            r = self.s._call('loadBefore', oid, maxtid)
            return r[1] if r else p64(0)
        except POSKeyError:
            pass
        try:
            return self.s.history(oid, 1)[0]['tid']
        except POSKeyError:
            return p64(0)

    def commit(self, objects, deletes=(), serials=None):
        """objects: [oid, data] each; deletes: oids. Known serials spare a question."""
        t = TransactionMetaData('user', 'text', {})
        s = self.s
        serials = serials or {}
        s.tpc_begin(t)
        try:
            for oid, data in objects:
                o = p64(oid)
                known = serials.get(oid)
                s.store(o, known if known is not None else self.serial(o), unb64(data), '', t)
            for oid in deletes:
                o = p64(oid)
                s.deleteObject(o, self.serial(o), t)
            s.tpc_vote(t)
            return {'tid': s.tpc_finish(t).hex()}
        except BaseException:
            s.tpc_abort(t)
            raise

    def burst(self, n, oids, size, seed):
        """n commits of one object each, of a content that Go knows too; answers all tids."""
        serials, tids = {}, []
        for i in range(n):
            oid = oids[i % len(oids)]
            data = content(oid, seed + i, size)
            r = self.commit([(oid, b64(data))], serials=serials)
            tid = bytes.fromhex(r['tid'])
            serials[oid] = tid
            tids.append(r['tid'])
        return {'tids': tids}

    def vote(self, oid, data):
        """The first phase of a commit, which is then left alone."""
        t = TransactionMetaData('user', 'text', {})
        o = p64(oid)
        self.s.tpc_begin(t)
        self.s.store(o, self.serial(o), unb64(data), '', t)
        self.s.tpc_vote(t)
        return {}

    def undo(self, tid):
        t = TransactionMetaData('user', 'undo', {})
        s = self.s
        s.tpc_begin(t)
        try:
            s.undo(base64.encodebytes(bytes.fromhex(tid)).rstrip(), t)
            s.tpc_vote(t)
            return {'tid': s.tpc_finish(t).hex()}
        except BaseException:
            s.tpc_abort(t)
            raise

    def pack(self, time):
        self.s.pack(time, referencesf, wait=True)
        return {}

    def load(self, oid, before):
        try:
            r = self.s.loadBefore(p64(oid), bytes.fromhex(before))
        except POSKeyError:
            return {'err': 'POSKeyError'}
        if r is None:
            return {'err': 'None'}
        data, serial, end = r
        return {'data': b64(data), 'tid': serial.hex(), 'end': end.hex() if end else ''}

    def loads(self, oids, before):
        return {'loads': [self.load(o, b) for o in oids for b in before]}

    def bench(self, oids, before):
        """Seconds to load these objects, which are larger than the client's cache."""
        b = bytes.fromhex(before)
        t0 = time.perf_counter()
        n = 0
        for oid in oids:
            n += len(self.s.loadBefore(p64(oid), b)[0])
        return {'seconds': time.perf_counter() - t0, 'bytes': n}

    def timed(self, oid, data):
        """Commits one object; answers when that began to be final."""
        t = TransactionMetaData('user', 'text', {})
        s = self.s
        s.tpc_begin(t)
        o = p64(oid)
        s.store(o, self.serial(o), unb64(data), '', t)
        s.tpc_vote(t)
        t0 = time.time()
        return {'tid': s.tpc_finish(t).hex(), 'at': t0}

    def listen(self):
        self.seen = {}
        self.s.registerDB(Listener(self.seen))
        return {}

    def heard(self, tid):
        """When this client was told of a commit."""
        want = bytes.fromhex(tid)
        while want not in self.seen:
            time.sleep(0.001)
        return {'at': self.seen[want]}


class Listener:
    """What a ZODB.DB is to a storage: it is called with what other clients commit."""

    def __init__(self, seen):
        self.seen = seen

    def invalidate(self, tid, oids, version=''):
        self.seen[tid] = time.time()

    def invalidateCache(self):
        pass

    def transform_record_data(self, data):
        return data

    untransform_record_data = transform_record_data


def content(oid, i, size):
    head = b'%d %d ' % (oid, i)
    body = (head * (size // len(head) + 1))[:size]
    return b'\x80\x03cpersistent\nPersistent\n.\x80\x03B' + len(body).to_bytes(4, 'little') + body + b'.'


def main():
    c = Client(sys.argv[1], sys.argv[2], sys.argv[3:])
    print(json.dumps({'ready': True}), flush=True)
    for line in sys.stdin:
        q = json.loads(line)
        try:
            r = getattr(c, q.pop('do'))(**q)
        except Exception as e:
            r = {'error': '%s: %s' % (type(e).__name__, e)}
        print(json.dumps(r), flush=True)


if __name__ == '__main__':
    main()
