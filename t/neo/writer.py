"""Writes to a NEO cluster as it is told: one JSON request a line on stdin, one answer a line.

usage: writer.py PROTOCOL CLUSTER HOST:PORT,... [CA CERT KEY]

A request is {"op": ..., ...}; an answer {"ok": result} or {"error": text}. Oids and tids are numbers, data is base64.
"""
import base64
import json
import os
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'pyneo'))

from client import Client, Lost, NEOError, Transaction, number  # noqa: E402


def p64(n):
    return n.to_bytes(8, 'big')


class Writer:
    def __init__(self, protocol, cluster, masters, *certs):
        self.args = int(protocol), cluster
        addresses = [(host, int(port)) for host, _, port in (m.rpartition(':') for m in masters.split(','))]
        self.args += addresses, certs or None
        self.client = Client(*self.args)

    def commit(self, objs, tid=None, checked=()):
        """objs: [oid, data] each, null deletes; checked: oids that must stay as they are."""
        c = self.client
        changes = [(p64(oid), c.serial(p64(oid)), None if data is None else base64.b64decode(data), None) for oid, data in objs]
        checked = [(p64(oid), c.serial(p64(oid))) for oid in checked]
        return number(c.commit(changes, b'user', b'text', checked=checked, tid=tid and p64(tid)))

    def timed(self, oid, data):
        """Commits one object; tells when that began to be final, and when it was."""
        t = Transaction(self.client, [(p64(oid), self.client.serial(p64(oid)), base64.b64decode(data), None)], (), (b'', b'', b''), None)
        t.vote()
        t0 = time.time()
        tid = t.finish()
        return {'tid': number(tid), 'began': t0, 'ended': time.time()}

    def undo(self, tid):
        return number(self.client.undo(p64(tid)))

    def pack(self, tid):
        self.client.pack(p64(tid))

    def head(self):
        return number(self.client.head())

    def load(self, oid, before):
        r = self.client.load(p64(oid), before=p64(before))
        if r is None:
            return None
        data, serial, after, source = r
        return {'data': None if data is None else base64.b64encode(data).decode(), 'tid': number(serial),
                'next': number(after or bytes(8)), 'source': number(source or bytes(8))}

    def many(self, oids, n, size):
        """n commits of one object each, in turn."""
        tids, serials = [], {}
        for i in range(n):
            oid = p64(oids[i % len(oids)])
            state = bytes([i % 256]) * size
            data = b'\x80\x02cstoragetest\nBlob\n.\x80\x03B' + size.to_bytes(4, 'little') + state + b'.'
            known = serials.get(oid)
            change = oid, self.client.serial(oid) if known is None else known, data, None
            serials[oid] = tid = self.client.commit([change])
            tids.append(number(tid))
        return tids

    def sync(self):
        """Waits until the cluster is operational."""
        self.client.retry(lambda: None)

    def operational(self):
        """Whether a client that comes now is let in."""
        c = Client(*self.args, patience=0)
        try:
            c.connect()
            return True
        except (Lost, NEOError):
            return False
        finally:
            c.close()

    def primary(self):
        """The address of the master that leads."""
        self.client.retry(lambda: None)
        return self.client.master.sock.getpeername()[:2]

    def cells(self):
        """The partition table: for each row the nodes and their states."""
        self.sync()
        return [sorted(row.items()) for row in self.client.rows]


def main():
    w = Writer(*sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {'ok': getattr(w, request.pop('op'))(**request)}
        except Exception:
            answer = {'error': traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
