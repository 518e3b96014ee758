"""A NEO client that commits: it stores on every cell, votes, finishes, and goes on when nodes come and go."""
import time
import zlib

from wire import Conn, NEOError, checksum

CLIENT, STORAGE = 2, 1
DISCARDED, CORRUPTED, READABLE = 4, 3, (1, 2)
RUNNING = 2
ZERO, MAX = bytes(8), b'\x7f' + b'\xff' * 7
NOT_READY, OID_NOT_FOUND, OID_DOES_NOT_EXIST, NON_READABLE, INCOMPLETE = 2, 3, 5, 10, 12
LOST = (OSError, EOFError)
PATIENCE = 60


def number(b):
    return int.from_bytes(b, 'big')


class Conflict(Exception):
    """Somebody else has committed the object meanwhile."""


class Lost(Exception):
    """A node went away; what was begun is to be begun again."""


class Client:
    """protocol 5 or 6; masters are pairs of host and port; certs are paths of ca, certificate and key."""

    def __init__(self, protocol, cluster, masters, certs=None, patience=PATIENCE):
        self.protocol, self.cluster, self.masters, self.certs = protocol, cluster.encode(), masters, certs
        self.patience = patience
        self.master, self.storages = None, {}
        self.forget()

    def forget(self):
        self.nodes, self.rows, self.me = {}, [], None
        self.ptid = 0

    # What the master tells.

    def notified(self, name, fields):
        if name == 'NotifyNodeInformation':
            for kind, address, nid, state, stamp in fields[1]:
                if self.me is None:  # the first is ourselves
                    self.me = nid, stamp
                self.nodes[nid] = kind, address, state
                if kind == STORAGE and state != RUNNING:
                    self.drop(nid)
        elif name == 'SendPartitionTable':
            self.ptid = fields[0]
            self.rows = [dict(row) for row in fields[2]]
        elif name == 'NotifyPartitionChanges' and fields[0] > self.ptid:
            self.ptid = fields[0]
            for row, nid, state in fields[2]:
                self.rows[row][nid] = state
                if state == DISCARDED:
                    del self.rows[row][nid]

    def drop(self, nid):
        conn = self.storages.pop(nid, None)
        if conn:
            conn.close()

    def disconnect(self):
        for nid in list(self.storages):
            self.drop(nid)
        if self.master:
            self.master.close()
        self.master = None
        self.forget()

    close = disconnect

    # Connections.

    def connect(self):
        """Connects to the primary master of an operational cluster."""
        end = time.monotonic() + self.patience
        why = None
        while self.master is None:
            for address in self.masters:
                try:
                    self.identify(address)
                    return
                except LOST + (NEOError,) as e:
                    if isinstance(e, NEOError) and e.code != NOT_READY:
                        raise
                    why = e
                    self.disconnect()
            if time.monotonic() > end:
                raise Lost('no master: %s' % why)
            time.sleep(0.05)

    def identify(self, address):
        self.master = Conn(self.protocol, address, self.notified, self.certs)
        self.master.ask('RequestIdentification', CLIENT, None, None, self.cluster, None, [], [])
        self.master.ask('Ping')
        if not self.operational():
            raise EOFError('not all partitions can be read')

    def operational(self):
        return self.rows and all(self.cells(i, readable=True) for i in range(len(self.rows)))

    def cells(self, x, readable=False):
        """The nodes that have what oid, tid or partition x is in."""
        row = self.rows[(x if isinstance(x, int) else number(x)) % len(self.rows)]
        return [nid for nid, state in row.items()
                if (state in READABLE if readable else state != CORRUPTED) and self.nodes[nid][2] == RUNNING]

    def storage(self, nid):
        conn = self.storages.get(nid)
        if conn is None:
            _, (host, port), _ = self.nodes[nid]
            conn = Conn(self.protocol, (host.decode(), port), self.notified, self.certs)
            self.storages[nid] = conn
            try:
                conn.ask('RequestIdentification', CLIENT, self.me[0], None, self.cluster, self.me[1], [], [])
            except NEOError as e:
                raise EOFError(str(e))
        return conn

    def sync(self):
        """Takes what the master has told so far."""
        self.connect()
        self.master.ask('Ping')

    def retry(self, f):
        """Does f again as long as nodes go away."""
        end = time.monotonic() + self.patience
        while True:
            try:
                self.sync()
                return f()
            except LOST + (Lost,) as e:
                if time.monotonic() > end:
                    raise
                self.disconnect()
                time.sleep(0.05)

    # Reading.

    def head(self):
        return self.retry(lambda: self.master.ask('AskLastTransaction')[0])

    def new_oids(self, n):
        return list(self.retry(lambda: self.master.ask('AskNewOIDs', n)[0]))

    def read(self, x, name, *args):
        """A question to a readable cell of x."""
        def f():
            for nid in self.cells(x, readable=True):
                try:
                    return self.storage(nid).ask(name, *args)
                except LOST:
                    self.drop(nid)
                except NEOError as e:
                    if e.code not in (NON_READABLE, NOT_READY):
                        raise
            raise Lost('no cell of %r answers' % x)
        return self.retry(f)

    def load(self, oid, at=None, before=None):
        """data, serial, next serial, serial of the data. Data is None if deleted. None if there is nothing."""
        try:
            _, serial, after, compression, sha, data, data_serial = self.read(oid, 'AskObject', oid, at, before)
        except NEOError as e:
            if e.code in (OID_NOT_FOUND, OID_DOES_NOT_EXIST):
                return None
            raise
        if not data and sha == bytes(20):
            return None, serial, after, data_serial
        if checksum(data) != sha:
            raise ValueError('wrong checksum of %s' % oid.hex())
        return zlib.decompress(data) if compression else data, serial, after, data_serial

    def serial(self, oid):
        """What a store of oid has to name."""
        r = self.load(oid)
        return r[1] if r else ZERO

    def oids_of(self, tid):
        return list(self.read(tid, 'AskTransactionInformation', tid)[5])

    # Writing. A change is (oid, serial that it replaces, data or None, serial that has the data or None).

    def commit(self, changes, user=b'', description=b'', extension=b'', checked=(), tid=None):
        """One transaction; checked are pairs of oid and serial. It is made once, whatever goes away."""
        return Transaction(self, changes, checked, (user, description, extension), tid).commit()

    def undo(self, tid):
        changes = []
        for oid in self.oids_of(tid):
            before = self.load(oid, before=tid)
            source = None
            if before and (before[0] is not None or before[3]):
                source = before[3] or before[1]
            changes.append((oid, self.serial(oid), None, source))
        return self.commit(changes, description=b'undo')

    def pack(self, tid):
        return self.retry(lambda: self.master.ask('AskPack', tid))


class Transaction:
    def __init__(self, client, changes, checked, texts, tid):
        self.client, self.changes, self.checked, self.texts, self.tid = client, changes, checked, texts, tid
        self.stored = [stored(data) for _, _, data, _ in changes]

    def commit(self):
        c = self.client
        end = time.monotonic() + c.patience
        while True:
            try:
                self.vote()
            except LOST + (NEOError,) as e:
                self.abort()
                if isinstance(e, NEOError) or time.monotonic() > end:
                    raise
                time.sleep(0.05)
                continue
            except BaseException:
                self.abort()
                raise
            tid = self.finish()
            if tid:
                return tid

    def vote(self):
        """All that can fail."""
        c = self.client
        c.sync()
        self.ttid, = c.master.ask('AskBeginTransaction', self.tid)
        asked, used = [], set()

        def ask(nid, name, *args):
            conn = c.storage(nid)
            asked.append((conn, name, args[0], conn.send(name, *args)))
            used.add(nid)

        for (oid, serial, data, source), (compression, sha, body) in zip(self.changes, self.stored):
            for nid in c.cells(oid):
                ask(nid, 'AskStoreObject', oid, serial, compression, sha, body, source, self.ttid)
        for oid, serial in self.checked:
            for nid in c.cells(oid):
                ask(nid, 'AskCheckCurrentSerial', self.ttid, oid, serial)
        for conn, name, oid, n in asked:
            other, = conn.wait(n)
            if other and other != ZERO:
                raise Conflict('%s of %s: it is at %s' % (name, oid.hex(), other.hex()))
        del asked[:]
        told = c.cells(self.ttid)
        for nid in told:
            ask(nid, 'AskStoreTransaction', self.ttid, *self.texts, [ch[0] for ch in self.changes] + self.read())
        for nid in used.difference(told):
            ask(nid, 'AskVoteTransaction', self.ttid)
        for conn, _, _, n in asked:
            conn.wait(n)
        self.used = used

    def read(self):
        return [oid for oid, _ in self.checked]

    def abort(self):
        # Closing aborts as well, and does not leave answers behind.
        self.client.disconnect()

    def finish(self):
        """The tid, or None if the transaction is not made."""
        c = self.client
        n = len(c.rows)
        oids = [ch[0] for ch in self.changes]
        if c.protocol == 6:
            args = oids, self.read()
        else:
            gone = [data is None and source is None for _, _, data, source in self.changes]
            args = ([oid for oid, g in zip(oids, gone) if not g],
                    sorted({number(oid) % n for oid, g in zip(oids, gone) if g}),
                    sorted({number(oid) % n for oid in self.read()}))
        try:
            return c.master.ask('AskFinishTransaction', self.ttid, *args)[1]
        except NEOError as e:
            if e.code != INCOMPLETE:
                raise
            c.disconnect()
            return None
        except LOST:
            c.disconnect()
            return self.outcome()

    def outcome(self):
        """Asks what became of a transaction whose answer was lost."""
        c = self.client
        tid, = c.retry(lambda: c.master.ask('AskFinalTID', self.ttid))
        if tid == MAX:
            tid, = c.read(self.ttid, 'AskFinalTID', self.ttid)
        return tid


def stored(data):
    """Compression, checksum and bytes to store."""
    if data is None:
        return 0, bytes(20), b''
    z = zlib.compress(data)
    if len(z) < len(data):
        return 1, checksum(z), z
    return 0, checksum(data), data
