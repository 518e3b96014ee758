"""What neoppod takes from Python 2, for Python 3. The port puts it into the package as neo.lib.py2.

Inside, binary data is str, one character a byte, as the code of Python 2 has it: concatenation, comparison
and formatting stay as they are. It becomes bytes where it leaves: sockets, struct, hashes, SQLite, zlib.
"""
import binascii
import builtins
import hashlib
import inspect
import sqlite3 as _sqlite3
import ssl as _ssl
import struct as _struct
import zlib as _zlib


def raw(s):
    """Text of one character a byte, as bytes."""
    return s.encode('latin-1') if isinstance(s, str) else bytes(s)


def text(b):
    """Bytes, as text of one character a byte."""
    return b if isinstance(b, str) else bytes(b).decode('latin-1')


buffer = raw


def apply(f, *args):
    return f(*args)


def getargspec(f):
    return inspect.getfullargspec(f)[:4]


def make_class(name, bases, members):
    """type() for classes that were of the old style: without object before other bases."""
    bases = tuple(b for b in bases if b is not object)
    return type(name, bases, {k: v for k, v in members.items() if k not in ('__dict__', '__weakref__')})


def _none_first(of):
    """max or min, None being less than anything."""
    def f(*args, **kw):
        kw.setdefault('key', lambda x: (x is not None, 0 if x is None else x))
        return of(*args, **kw)
    return f


max, min = _none_first(builtins.max), _none_first(builtins.min)


def less(a, b):
    return b is not None and (a is None or a < b)


class TLSSocket(_ssl.SSLSocket):
    """A peer that is gone already is found by the handshake, not when the socket is wrapped."""

    def getpeername(self):
        try:
            return super().getpeername()
        except OSError:
            return None


class Struct:
    def __init__(self, fmt):
        self._struct = _struct.Struct(fmt)
        self.size = self._struct.size

    def pack(self, *values):
        return text(self._struct.pack(*values))

    def unpack(self, s):
        if s is None:
            raise _struct.error('nothing to unpack')
        return self._struct.unpack(raw(s))


def pack(fmt, *values):
    return text(_struct.pack(fmt, *values))


def unpack(fmt, s):
    return _struct.unpack(fmt, raw(s))


class sha1:
    def __init__(self, s=''):
        self._hash = hashlib.sha1(raw(s))

    def update(self, s):
        self._hash.update(raw(s))

    def digest(self):
        return text(self._hash.digest())

    def hexdigest(self):
        return self._hash.hexdigest()


def a2b_hex(s):
    return text(binascii.a2b_hex(s))


def b2a_hex(s):
    return binascii.b2a_hex(raw(s)).decode()


class zlib:
    Z_BEST_COMPRESSION = _zlib.Z_BEST_COMPRESSION

    @staticmethod
    def compress(s, *level):
        return text(_zlib.compress(raw(s), *level))

    @staticmethod
    def decompress(s):
        return text(_zlib.decompress(raw(s)))


class sqlite3:
    IntegrityError, OperationalError = _sqlite3.IntegrityError, _sqlite3.OperationalError

    @staticmethod
    def connect(*args, **kw):
        conn = _sqlite3.connect(*args, **kw)
        conn.row_factory = lambda _, row: tuple(text(x) if isinstance(x, bytes) else x for x in row)
        return conn
