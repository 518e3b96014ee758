"""A ZODB storage over the client: for writers that use ZODB.DB, one at a time."""
import os
import sys
import threading

from ZODB.POSException import POSKeyError

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from client import ZERO, Client  # noqa: E402


def opened(where):
    """The storage that PROTOCOL:CLUSTER:HOST:PORT,HOST:PORT...[:CA:CERT:KEY] names."""
    protocol, cluster, rest = where.split(':', 2)
    masters, certs = [], []
    for part in rest.split(','):
        host, port, *certs = part.split(':')
        masters.append((host, int(port)))
    return NEOStorage(Client(int(protocol), cluster, masters, certs or None))


class NEOStorage:
    """It votes and finishes when ZODB finishes: what can fail in between is not tested with it."""

    def __init__(self, client):
        self.client, self.oids, self.last_oid, self.lock = client, [], ZERO, threading.RLock()

    def registerDB(self, db):
        self.db = db

    def close(self):
        self.client.close()

    def getName(self):
        return 'NEO'

    sortKey = getName

    def isReadOnly(self):
        return False

    def supportsUndo(self):
        return False

    def getSize(self):
        return 0

    def __len__(self):
        return 0

    def lastTransaction(self):
        with self.lock:
            return self.client.head()

    def new_oid(self):
        with self.lock:
            while not self.oids:
                # A master that has taken over gives out again what the one before did and nobody has stored.
                self.oids = sorted(oid for oid in self.client.new_oids(100) if oid > self.last_oid)
            self.last_oid = self.oids.pop(0)
            return self.last_oid

    def loadBefore(self, oid, tid):
        with self.lock:
            r = self.client.load(oid, before=tid)
        if r is None or r[0] is None:
            raise POSKeyError(oid)
        return r[:3]

    def tpc_begin(self, transaction):
        self.lock.acquire()
        self.changes, self.checked = [], []

    def store(self, oid, serial, data, version, transaction):
        self.changes.append((oid, serial or ZERO, data, None))

    def checkCurrentSerialInTransaction(self, oid, serial, transaction):
        self.checked.append((oid, serial))

    def tpc_vote(self, transaction):
        pass

    def tpc_abort(self, transaction):
        self.lock.release()

    def tpc_finish(self, transaction, callback=lambda tid: None):
        try:
            tid = self.client.commit(self.changes, transaction.user, transaction.description, checked=self.checked)
            callback(tid)
            return tid
        finally:
            self.lock.release()
