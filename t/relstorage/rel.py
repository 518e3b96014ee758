"""Writes RelStorage databases for the tests: one JSON request a line on stdin, one answer a line.

A request is {"op": ..., ...}; an answer {"ok": result} or {"error": text}. Oids and tids are integers,
records are base64. Storages are named by the number that "open" returned.
"""
import base64
import json
import sys
import threading
import traceback

import transaction
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, u64, z64
from relstorage.options import Options
from relstorage.storage import RelStorage


def adapter(req, options):
    if req["kind"] == "sqlite":
        from relstorage.adapters.sqlite.adapter import Sqlite3Adapter
        return Sqlite3Adapter(req["dsn"], pragmas={}, options=options)
    from relstorage.adapters.postgresql import PostgreSQLAdapter
    return PostgreSQLAdapter(dsn=req["dsn"], options=options)


class Writer:
    def __init__(self, req):
        options = Options(keep_history=req.get("keep_history", True), pack_gc=False, cache_local_mb=1)
        options.driver = "psycopg2" if req["kind"] == "postgresql" else "auto"
        self.storage = RelStorage(adapter(req, options), options=options)
        self.serials = {}
        self.txn = None

    def begin(self, objs):
        """Store and vote; the transaction waits for finish or abort."""
        self.txn = TransactionMetaData(b"", b"t")
        self.storage.tpc_begin(self.txn)
        for oid, data in objs:
            self.storage.store(p64(oid), self.serials.get(oid, z64), base64.b64decode(data), "", self.txn)
        self.storage.tpc_vote(self.txn)
        self.oids = [oid for oid, _ in objs]

    def finish(self):
        tid = self.storage.tpc_finish(self.txn)
        for oid in self.oids:
            self.serials[oid] = tid
        return u64(tid)

    def abort(self):
        self.storage.tpc_abort(self.txn)

    def commit(self, objs):
        self.begin(objs)
        return self.finish()

    def undo(self, tid, oids):
        txn = TransactionMetaData(b"", b"undo")
        self.storage.tpc_begin(txn)
        self.storage.undo(base64.encodebytes(p64(tid)).rstrip(), txn)
        self.storage.tpc_vote(txn)
        new = self.storage.tpc_finish(txn)
        for oid in oids:
            self.serials[oid] = new
        return u64(new)

    def restore(self, tid, objs):
        """Commit under a given tid, as imports do; null deletes."""
        txn = TransactionMetaData(b"", b"restored")
        self.storage.tpc_begin(txn, p64(tid), " ")
        for oid, data in objs:
            data = base64.b64decode(data) if data is not None else None
            self.storage.restore(p64(oid), p64(tid), data, "", None, txn)
        self.storage.tpc_vote(txn)
        self.storage.tpc_finish(txn)

    def pack(self, tid):
        """Pack to exactly that transaction, objects without references kept."""
        adapter = self.storage._adapter
        conn, cursor = adapter.connmanager.open_for_pack_lock()
        adapter.locker.hold_pack_lock(cursor)
        try:
            adapter.packundo.pre_pack(tid, lambda state: ())
            adapter.packundo.pack(tid)
        finally:
            adapter.locker.release_pack_lock(cursor)
            adapter.connmanager.rollback_and_close(conn, cursor)
        # revisions without an object, as undo leaves them, are gone: nothing may follow them any more
        conn, cursor = adapter.connmanager.open_for_load()
        cursor.execute("SELECT zoid, tid FROM current_object")
        self.serials = {oid: p64(serial) for oid, serial in cursor.fetchall()}
        adapter.connmanager.rollback_and_close(conn, cursor)

    def many(self, oids, n, size):
        """n commits of one object each, in turn."""
        tids = []
        for i in range(n):
            oid = oids[i % len(oids)]
            state = b"\x80\x02cstoragetest\nBlob\n.\x80\x03B" + size.to_bytes(4, "little") + bytes([i % 256]) * size + b"."
            tids.append(self.commit([(oid, base64.b64encode(state))]))
        return tids

    def close(self):
        self.storage.close()


def main():
    storages = []
    for line in sys.stdin:
        req = json.loads(line)
        try:
            op = req.pop("op")
            if op == "open":
                storages.append(Writer(req))
                res = len(storages) - 1
            else:
                res = getattr(storages[req.pop("storage")], op)(**req)
            ans = {"ok": res}
        except Exception:
            ans = {"error": traceback.format_exc()}
        print(json.dumps(ans), flush=True)


main()
