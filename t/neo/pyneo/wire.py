"""NEO messages as a client has them, in both encodings: structs of protocol 6, msgpack of protocol 5.

It is written from the protocol and shares nothing with the Go driver, whose peer it is. A field is described
by a letter: o oid or tid or None, u a number, q a long one, n a node, s bytes, b a flag, f a time or None,
c a checksum, a an address or None, e1 to e4 enumerations; [x] is a list, (x, y) several fields.
"""
import hashlib
import socket
import ssl
import struct

import msgpack

HANDSHAKE = {6: b'\0\0\0\6', 5: b'\x92\xa3NEO\5'}
RESPONSE = 0x8000
NONE = b'\xff' * 8

# name: code in protocol 6, code in 5, fields of the request, fields of the answer
MESSAGES = {
    'Error': (0x8000, 0x8000, 'us', None),
    'RequestIdentification': (1, 1, ('e4', 'n', 'a', 's', 'f', ['s'], ['u']), ('e4', 'n', 'n')),
    'Ping': (2, 2, (), ()),
    'CloseClient': (3, 3, (), None),
    'NotPrimaryMaster': (5, 5, ('n', ['a']), None),
    'NotifyNodeInformation': (6, 6, ('f', [('e4', 'a', 'n', 'e3', 'f')]), None),
    'SendPartitionTable': (0x0a, 0x0a, ('q', 'u', [[('n', 'e0')]]), None),
    'NotifyPartitionChanges': (0x0b, 0x0b, ('q', 'u', [('u', 'n', 'e0')]), None),
    'StopOperation': (0x0d, 0x0d, (), None),
    'AskFinalTID': (0x10, 0x10, 'o', 'o'),
    'AskBeginTransaction': (0x12, 0x12, 'o', 'o'),
    'AskFinishTransaction': (0x14, 0x14, ('o', ['o'], ['o']), 'oo'),
    'InvalidateObjects': (0x16, 0x16, ('o', ['o']), None),
    'AskNewOIDs': (0x18, 0x19, 'u', (['o'],)),
    'AskStoreObject': (0x1c, 0x1c, 'oobcsoo', 'o'),
    'AbortTransaction': (0x1d, 0x1d, ('o', ['n']), None),
    'AskStoreTransaction': (0x1e, 0x1e, ('o', 's', 's', 's', ['o']), ()),
    'AskVoteTransaction': (0x1f, 0x1f, 'o', ()),
    'AskObject': (0x20, 0x20, 'ooo', 'ooobcso'),
    'AskTransactionInformation': (0x22, 0x22, 'o', ('o', 's', 's', 's', 'b', ['o'])),
    'NotifyClusterInformation': (0x2d, 0x2d, ('e1',), None),
    'AskTIDsFrom': (0x30, 0x30, 'oouu', (['o'],)),
    'AskPack': (0x31, 0x131, 'o', 'b'),  # of 5 only our port of 1.12.0 knows this one
    'AskLastTransaction': (0x38, 0x3c, (), 'o'),
    'AskCheckCurrentSerial': (0x39, 0x3d, 'ooo', 'o'),
    'FlushLog': (0x42, 0x46, (), None),
}


class NEOError(Exception):
    """An answer that is an error: code, text."""

    def __init__(self, code, text):
        super().__init__('NEO error %d: %s' % (code, text))
        self.code = code


# How structs are written and read.

FIXED = {'u': '>L', 'q': '>Q', 'n': '>l', 'b': '>B'}


def pack6(kind, v):
    if isinstance(kind, list):
        return struct.pack('>L', len(v)) + b''.join(pack6(kind[0], x) for x in v)
    if isinstance(kind, tuple) or len(kind) > 1 and kind[0] != 'e':
        return b''.join(pack6(k, x) for k, x in zip(kind, v, strict=True))
    if kind in FIXED:
        return struct.pack(FIXED[kind], v or 0)
    if kind[0] == 'e':
        return struct.pack('>b', v)
    if kind == 's':
        return struct.pack('>L', len(v)) + v
    if kind == 'f':
        return NONE if v is None else struct.pack('>d', v)
    if kind == 'a':
        return pack6('s', v[0]) + struct.pack('>H', v[1]) if v else pack6('s', b'')
    return NONE if v is None else v  # o, c


class Reader6:
    def __init__(self, b):
        self.b, self.at = b, 0

    def take(self, n):
        if self.at + n > len(self.b):
            raise ValueError('message too short')
        self.at += n
        return self.b[self.at - n:self.at]

    def fixed(self, fmt):
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def read(self, kind):
        if isinstance(kind, list):
            return [self.read(kind[0]) for _ in range(self.fixed('>L'))]
        if isinstance(kind, tuple) or len(kind) > 1 and kind[0] != 'e':
            return tuple(self.read(k) for k in kind)
        if kind in FIXED:
            return self.fixed(FIXED[kind])
        if kind[0] == 'e':
            return self.fixed('>b')
        if kind == 's':
            return self.take(self.fixed('>L'))
        if kind == 'a':
            host = self.read('s')
            return (host, self.fixed('>H')) if host else None
        b = self.take(20 if kind == 'c' else 8)
        if b == NONE:
            return None
        return struct.unpack('>d', b)[0] if kind == 'f' else b


def pack5(kind, v):
    if isinstance(kind, list):
        return [pack5(kind[0], x) for x in v]
    if isinstance(kind, tuple) or len(kind) > 1 and kind[0] != 'e':
        return [pack5(k, x) for k, x in zip(kind, v, strict=True)]
    if v is None:
        return None
    if kind[0] == 'e':
        return msgpack.ExtType(int(kind[1]), msgpack.packb(v))
    return int(v) if kind == 'b' else v


def fields5(name, fields):
    """What protocol 5 has instead in some requests."""
    if name == 'RequestIdentification':
        return fields[:5] + [{}]
    if name == 'AskStoreTransaction':
        return fields + [None]
    if name == 'AskStoreObject':
        return fields
    return fields


def message(protocol, number, name, args):
    code6, code5, kinds, _ = MESSAGES[name]
    if protocol == 6:
        body = pack6(tuple(kinds), args)
        return struct.pack('>LHL', number, code6, len(body)) + body
    if name == 'AskFinishTransaction':  # its fields are those of 5 already
        fields = list(args) + [None]
    else:
        fields = fields5(name, pack5(tuple(kinds), args))
    return msgpack.packb((number, code5, fields))


class Conn:
    """A connection to a node. It is used by one thread; questions are answered in turn."""

    def __init__(self, protocol, address, on_notification, certs=None, timeout=30):
        self.protocol, self.notify = protocol, on_notification
        self.sock = socket.create_connection(address, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if certs:
            ca, cert, key = certs
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(ca)
            context.load_cert_chain(cert, key)
            self.sock = context.wrap_socket(self.sock)
        self.number, self.buf, self.answers = 0, b'', {}
        column = 0 if protocol == 6 else 1
        self.names = {m[column]: name for name, m in MESSAGES.items()}
        self.unpacker = msgpack.Unpacker(raw=True, use_list=False, strict_map_key=False,
                                         ext_hook=lambda code, data: msgpack.unpackb(data))
        self.sock.sendall(HANDSHAKE[protocol])
        got = self.take(len(HANDSHAKE[protocol]))
        if got != HANDSHAKE[protocol]:
            raise EOFError('handshake %s' % got.hex())
        self.unpacker.feed(self.buf)

    def recv(self):
        b = self.sock.recv(1 << 16)
        if not b:
            raise EOFError('the node closed the connection')
        return b

    def take(self, n):
        while len(self.buf) < n:
            self.buf += self.recv()
        b, self.buf = self.buf[:n], self.buf[n:]
        return b

    def next(self):
        """The next message: number, code, fields."""
        if self.protocol == 6:
            number, code, size = struct.unpack('>LHL', self.take(10))
            return number, code, self.take(size)
        while True:
            try:
                return self.unpacker.unpack()
            except msgpack.OutOfData:
                self.unpacker.feed(self.recv())

    def decode(self, code, body):
        """Name and fields; a name of None for what a client need not know."""
        name = self.names.get(code if code == RESPONSE else code & ~RESPONSE)
        if name is None:
            return None, ()
        kinds = MESSAGES[name][3 if code & RESPONSE and code != RESPONSE else 2]
        if self.protocol == 5:
            return name, body
        reader = Reader6(body)
        fields = reader.read(tuple(kinds))
        if reader.at != len(body):
            raise ValueError('%s is too long' % name)
        return name, fields

    def send(self, name, *args):
        number = self.number
        self.number = (number + 1) & 0xffffffff
        self.sock.sendall(message(self.protocol, number, name, args))
        return number

    def wait(self, number):
        """The answer to a request."""
        while number not in self.answers:
            n, code, body = self.next()
            name, fields = self.decode(code, body)
            if code & RESPONSE:
                self.answers[n] = name, fields
            elif name:
                self.notify(name, fields)
        name, fields = self.answers.pop(number)
        if name == 'Error':
            raise NEOError(fields[0], fields[1].decode('utf-8', 'replace'))
        return fields

    def ask(self, name, *args):
        return self.wait(self.send(name, *args))

    def close(self):
        """Without TLS's close_notify, on which 1.12.0 spins."""
        self.sock.close()


def checksum(b):
    return hashlib.sha1(b).digest()
