"""Protocol 5 for the neoppod of protocol 6. The port puts it into the package as neo.lib.wire5, and
neo.lib.protocol ends with a call of install() if $NEO_WIRE asks for it.

It owns how messages are written: msgpack arrays instead of structs, other codes, and a few messages of other
fields. What the nodes do stays as in 1.12.0; so packs are not transactions, and nothing is read-only.
"""
import msgpack

from .py2 import raw, text

HANDSHAKE = b'\x92\xa3NEO\x05'
RESPONSE = 0x8000
ENUMS = 'CellStates', 'ClusterStates', 'ErrorCodes', 'NodeStates', 'NodeTypes'  # in the order of their ext types


def code5(code):
    """The code of a message in protocol 5; above 0x100 if it has none."""
    response, code = code & RESPONSE, code & ~RESPONSE
    if 0x17 <= code <= 0x19:
        code += 1      # InvalidatePartitions was put before them
    elif code in (0x1a, 0x1b, 0x31):
        code += 0x100  # AskRebaseTransaction, AskRebaseObject, AskPack
    elif code >= 0x32:
        code += 4
    return response | code


def install(p):
    """Changes the module neo.lib.protocol."""
    codecs(p)
    by_code = {code5(code): cls for code, cls in p.Packets.items()}

    def init(self, *args):
        self._body = None
        if args:
            fields = self._fmt.to5(args)
            outgoing.get(self.handler_method_name, bool)(fields)
            self._body = fields

    def decode(self):
        if self._fmt is None:
            return ()
        fields = list(self._body)
        try:
            incoming.get(self.handler_method_name, bool)(fields)
            return self._fmt.from5(fields)
        except Exception as e:
            raise p.PacketMalformedError('%s: %s' % (self.handler_method_name, e))

    def encode(self):
        return text(msgpack.packb((self._id, code5(self._code), self._body or []))),

    p.Packet.__init__, p.Packet.decode, p.Packet.encode = init, decode, encode
    p.Packet.__len__ = lambda self: 1  # not 0, which would be false
    p.ENCODED_VERSION = text(HANDSHAKE)
    p.packet5 = by_code.get


def codecs(p):
    """Gives each kind of field a way to and from what msgpack has."""
    same = lambda self, v: v
    optional = lambda f: lambda self, v: None if v is None else f(self, v)

    def kind(cls, to5, from5):
        cls.to5, cls.from5 = optional(to5), optional(from5)

    kind(p.PItem, same, same)
    kind(p.PStruct, lambda self, v: [i.to5(x) for i, x in zip(self._items, v, strict=True)],
         lambda self, v: tuple(i.from5(x) for i, x in zip(self._items, v, strict=True)))
    kind(p.PList, lambda self, v: [self._item.to5(x) for x in v], lambda self, v: [self._item.from5(x) for x in v])
    kind(p.PDict, lambda self, v: {self._key.to5(k): self._value.to5(x) for k, x in v.items()},
         lambda self, v: {self._key.from5(k): self._value.from5(x) for k, x in v.items()})
    enums = {id(getattr(p, name)): i for i, name in enumerate(ENUMS)}
    kind(p.PEnum, lambda self, v: msgpack.ExtType(enums[id(self._enum)], msgpack.packb(int(v))),
         lambda self, v: self._enum[v])
    kind(p.PBoolean, lambda self, v: bool(v), same)
    for cls in p.PNumber, p.PIndex, p.PPTID, p.PSignedNull:
        kind(cls, lambda self, v: int(v), same)
    for cls in p.PString, p.PChecksum:
        kind(cls, lambda self, v: raw(v), lambda self, v: text(v))
    kind(p.PTID, lambda self, v: None if v == p.INVALID_TID else raw(v), lambda self, v: text(v))
    kind(p.PAddress, lambda self, v: [raw(v[0]), v[1]] if v else None, lambda self, v: (text(v[0]), v[1]))


# Fields that differ, by the name of the message's handler. Messages that are written become those of protocol 5,
# messages that are read those of 1.12.0.

def identification_out(f):
    f[5:] = [{k: v for k, v in ((b'devpath', f[5]), (b'new_nid', f[6])) if v}]


def identification_in(f):
    f[5:] = [f[5].get(b'devpath', ()), f[5].get(b'new_nid', ())]


def object_out(f):
    deleted = not f[5] and f[4] == bytes(20)
    f[3] = None if deleted else int(f[3])


def finish_out(f):
    f[2:] = [[], [int.from_bytes(oid, 'big') for oid in f[2]], None]


def finish_in(f):
    # Of the deleted and of the checked there are the partitions, which are oids in these partitions too.
    f[2:] = [[n.to_bytes(8, 'big') for n in f[2] + f[3]]]


def store_transaction_in(f):
    del f[5:]  # what a pack is to do


outgoing = {
    'requestIdentification': identification_out,
    'answerObject': object_out,
    'askStoreTransaction': lambda f: f.append(None),
    'askFinishTransaction': finish_out,
}
incoming = {
    'requestIdentification': identification_in,
    'askStoreTransaction': store_transaction_in,
    'askFinishTransaction': finish_in,
}


def parse(conn, p):
    """The next message of a connection, or None."""
    buf = conn.read_buf
    unpacker = conn.__dict__.get('_unpacker')
    if unpacker is None:
        handshake = buf.read(len(HANDSHAKE))
        if handshake is None:
            return None
        if handshake != text(HANDSHAKE):
            from .connector import ConnectorException
            raise ConnectorException
        unpacker = conn._unpacker = msgpack.Unpacker(
            raw=True, use_list=True, strict_map_key=False, max_buffer_size=p.MAX_PACKET_SIZE,
            ext_hook=lambda code, data: msgpack.unpackb(data))
    if len(buf):
        unpacker.feed(raw(buf.read(len(buf))))
    # As in the real one, an exception for anything but [int, int, array] ends the process.
    for number, code, fields in unpacker:
        cls = p.packet5(code)
        if cls is None:
            raise p.PacketMalformedError('unknown message')
        packet = cls()
        packet.setContent(number, fields)
        return packet
    return None
