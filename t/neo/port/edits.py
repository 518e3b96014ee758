"""Where neoppod 1.12.0 needs more than a general rule for Python 3: by file, what is replaced by what.

Each old text must be there, so that another version is not taken silently.
"""

# Protocol 5 is chosen when the process starts.
WIRE5 = "if os.environ.get('NEO_WIRE') == '5':\n"

EDITS = {
    'client/__init__.py': [
        # It looks at code that ZODB 5 does not have.
        ('\npatch()\n', '\nOLD_ZODB = False\n'),
        ('\nimport app ', '\nfrom . import app '),
    ],
    'client/app.py': [
        # importFrom, which neomigrate uses, has bytes from ZODB.
        ('            tid = transaction.tid\n', '            tid = text(transaction.tid)\n'),
        ('                oid = r.oid\n', '                oid = text(r.oid)\n'),
        ('self.store(oid, pre, r.data, r.version,',
         'self.store(oid, pre, r.data and text(r.data), r.version,'),
        ('dumps(ext, _protocol) if ext', 'text(dumps(ext, _protocol)) if ext'),
        ('str(transaction.user)', 'text(transaction.user)'),
        ('str(transaction.description)', 'text(transaction.description)'),
    ],
    'lib/app.py': [
        ('ssl.SSLContext(version)\n',
         'ssl.SSLContext(version)\n            from neo.lib.py2 import TLSSocket\n'
         '            context.sslsocket_class = TLSSocket\n'),
    ],
    'lib/config.py': [('SafeConfigParser', 'ConfigParser')],
    'lib/connection.py': [
        ('    def _parse(self):\n',
         '    def _parse(self):\n        ' + WIRE5 +
         '            from neo.lib import protocol, wire5\n            return wire5.parse(self, protocol)\n'),
        ('from functools import wraps\n', 'import os\nfrom functools import wraps\n'),
    ],
    'lib/connector.py': [
        ('data = self.socket.recv(65536)', 'data = text(self.socket.recv(65536))'),
        ('self.socket.send(msg)', 'self.socket.send(raw(msg))'),
        # 1.12.0 spins when TLS is closed in due form; what speaks protocol 5 does not.
        ('                read_buf.append(self.socket.recv(4096))\n',
         '                data = text(self.socket.recv(4096))\n'
         "                if not data and len(ENCODED_VERSION) != 4:\n                    self._error('recv')\n"
         '                read_buf.append(data)\n'),
        ('content_type = self.socket._sock.recv(1, socket.MSG_PEEK)',
         'content_type = text(socket.socket.recv(self.socket, 1, socket.MSG_PEEK))'),
        ('type(name + base.__name__,', 'make_class(name + base.__name__,'),
    ],
    'lib/handler.py': [],
    'lib/interfaces.py': [
        ('inspect.getargspec', 'getargspec'),
        ('    exec("def', '    names = {}\n    exec("def'),
        ('",".join(args), func.__name__))\n    func.__code__ = f.__code__',
         '",".join(args), func.__name__), names)\n    func.__code__ = names["f"].__code__'),
    ],
    'lib/node.py': [
        ('if self._timestamp < id_timestamp:', 'if less(self._timestamp, id_timestamp):'),
    ],
    'lib/protocol.py': [
        ("        __slots__ = '_name', '_enum'\n", '        __hash__ = int.__hash__\n'),
        ('_sort_key=itemgetter(2)', '_sort_key=lambda node: node[2] or 0'),
        ('class Packets(dict):\n',
         "def registry(name, bases, members):\n    return members['__metaclass__'](name, bases, members)\n\n"
         'class Packets(dict, metaclass=registry):\n'),
        ('\nErrors = Errors()\n',
         '\nErrors = Errors()\n\nimport os\n' + WIRE5 + '    import sys\n    from neo.lib import wire5\n'
         '    wire5.install(sys.modules[__name__])\n'),
    ],
    'lib/pt.py': [
        ("partial(bytearray, '.' * self.np)", "partial(list, '.' * self.np)"),
        ('                node_dict[node])\n', "                ''.join(node_dict[node]))\n"),
    ],
    'master/transactions.py': [
        ('if self._last_oid < oid:', 'if less(self._last_oid, oid):'),
        ('if self._last_tid < tid:', 'if less(self._last_tid, tid):'),
    ],
}
EDITS['lib/handler.py'] += [
    ('    __new__ = object.__new__\n', '    def __new__(cls, *args, **kw):\n        return object.__new__(cls)\n'),
]
