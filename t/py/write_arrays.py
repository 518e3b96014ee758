"""write_arrays.py FILE: write a FileStorage with arrays of all types, in all kinds of places, and print what it has.

One JSON object: "arrays" maps a path below arrays/ to {"descr", "itemsize", "shape", "order", "oid", "array", "since"},
and "absent" lists paths that lead nowhere. Names are those that package arrays makes of keys.
"""

import json
import sys

import numpy as np
import transaction
import ZODB
from BTrees.IOBTree import IOBTree
from BTrees.LOBTree import LOBTree
from BTrees.OIBTree import OIBTree
from BTrees.OOBTree import OOBTree, OOSet
from numpy.lib import format as npformat
from persistent import Persistent
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage

from wendelin.bigarray.array_zodb import ZBigArray
from wendelin.bigfile.file_zodb import ZBigFile, ZBlk0

DTYPES = [
    'b1', 'i1', 'u1', '<i2', '>i2', '<u4', '>i8', '<f2', '<f4', '>f8', '<c8', '>c16', 'S5', '<U7', '>U3', 'V3',
    '<f16', '<c32', 'M8[ns]', 'M8[D]', '<m8[25s]', '>M8[us]', 'm8',
    [('a', '<i4'), ('b', '>f8')],
    [('a', 'i1'), ('sub', '<f4', (2, 3)), ('n', [('x', '<u2'), ('y', 'S3')])],
    np.dtype([('a', 'i1'), ('b', '<f8')], align=True),
    np.dtype({'names': ['a', 'b'], 'formats': ['<i4', '<i2'], 'offsets': [4, 10], 'itemsize': 20}),
    np.dtype([(('title', 'name'), '<i4'), ('\u00e9', '<i2')]),
    [('s', [('t', '<i2', (4,)), ('u', 'M8[ms]')], (2,))],
]


class Folder(Persistent):
    """As OFS.ObjectManager: items are attributes."""

    def __init__(self):
        self._objects = ()

    def add(self, name, obj):
        setattr(self, name, obj)
        self._objects += ({'id': name, 'meta_type': 'x'},)


class BTreeFolder(Persistent):
    def __init__(self, attr='_tree'):
        self._count = 0
        setattr(self, attr, OOBTree())


class Plain(object):
    """Not persistent: it is a part of its holder's record."""


class Slots(Persistent):
    """Of a class whose state is a pair."""

    def __getstate__(self):
        return ({'x': 1}, {'slot': self.slot})


def main(path):
    db = ZODB.DB(FileStorage(path, create=True))
    conn = db.open()
    root = conn.root()
    rng = np.random.RandomState(7)
    arrays = {}

    def new(dtype='<f8', shape=(3,), order='C'):
        a = ZBigArray(shape, dtype, order)
        raw = rng.bytes(a._dtype.itemsize * int(np.prod(shape, dtype=int)))
        if a._dtype.kind in 'U' or a._dtype.kind == 'b':
            raw = bytes(len(raw))
        for i in range(0, len(raw), a.zfile.blksize):
            a.zfile.set(i // a.zfile.blksize, raw[i:i + a.zfile.blksize], ZBlk0)
        return a

    def put(name, a):
        arrays[name] = a
        return a

    # types, shapes and orders
    types = root['types'] = PersistentMapping()
    for i, dtype in enumerate(DTYPES):
        types['t%d' % i] = put('types/t%d' % i, new(dtype, (5, 2), 'CF'[i % 2]))
    shapes = root['shapes'] = PersistentMapping()
    for i, shape in enumerate([(), (0,), (1, 2, 3, 4), (np.int64(3), np.int32(2)), (7,)]):
        shapes[i] = put('shapes/%d' % i, new(shape=shape))

    # places
    root['signals'] = put('signals', new(shape=(100, 2)))
    oo = root['oo'] = OOBTree()
    for i in range(100):
        oo['k%03d' % i] = put('oo/k%03d' % i, new())
    for n, tree in ('io', IOBTree()), ('lo', LOBTree()):
        root[n] = tree
        for i in range(-3, 90, 7):
            tree[i] = put('%s/%d' % (n, i), new())
    root['oi'] = OIBTree({'x': 1})
    app = root['Application'] = Folder()
    erp5 = Folder()
    app.add('erp5', erp5)
    module = BTreeFolder()
    erp5.add('data_array_module', module)
    for i in range(5):
        item = Folder()
        item.array = put('Application/erp5/data_array_module/%d/array' % i, new())
        module._tree[str(i)] = item
    htree = BTreeFolder('_htree')
    erp5.add('hashed', htree)
    htree._htree['a'] = OOBTree({'b': OOBTree({'a-b-c': put('Application/erp5/hashed/a/b/a-b-c', new())})})
    root['list'] = PersistentList([1, put('list/1', new()), [put('list/2/0', new())]])
    holder = root['holder'] = Folder()
    holder.parts = {'x': [put('holder/parts/x/0', new())], 'none': None}
    plain = Plain()
    plain.field = put('holder/plain/field', new())
    holder.plain = plain
    holder.number, holder.big, holder.real = 3, 1 << 100, 1.5
    slots = root['slots'] = Slots()
    slots.slot = put('slots/slot', new())
    members = new()
    conn.add(members)
    root['set'] = Folder()
    root['set'].members = {members}

    # names
    names = root['names'] = PersistentMapping()
    for key, name in [
        ('a/b', 'a%2Fb'), ('', '%'), ('.', '%2E'), ('..', '%2E%2E'), ('100%', '100%25'), ('nul\0', 'nul%00'),
        ('new\nline', 'new%0Aline'), ('\u00fc\u4e2d\U0001f600', '\u00fc\u4e2d\U0001f600'), ('x.json', 'x%2Ejson'),
        ('y' * 300, 'y' * 240 + '%+/' + 'y' * 60), ('\u4e2d' * 100, '\u4e2d' * 80 + '%+/' + '\u4e2d' * 20),
        ('z' * 300, 'z' * 240 + '%+/' + 'z' * 60), ('z' * 299 + 'Z', 'z' * 240 + '%+/' + 'z' * 59 + 'Z'),
        ('5', '5'), (5, '%i5'), (('a', 1), '%r("a", 1)'), (None, '%rNone'), (True, '%rTrue'), (' ', ' '),
    ]:
        names[key] = put('names/' + name, new())
    names['y'] = put('names/y', new())

    # cycles, several paths, old records
    cycle = root['cycle'] = Folder()
    cycle.back, cycle.self, cycle.top = root['Application'], cycle, root
    cycle.array = put('cycle/array', new())
    root['also'] = put('also', root['signals'])
    old = root['old'] = put('old', new())
    del old._order
    grown = root['grown'] = put('grown', new(shape=(4, 3)))
    shorter = root['shorter'] = put('shorter', new(shape=(2,)))
    shorter.zfile.set(9, b'beyond', ZBlk0)
    root['file'] = ZBigFile(4096)
    root['file'].set(1, b'data', ZBlk0)
    transaction.commit()
    grown.resize((9, 3))
    transaction.commit()

    out = {}
    for name, a in arrays.items():
        a._p_activate()
        out[name] = {
            'descr': npformat.dtype_to_descr(a._dtype) if name != 'types/t26x' else None,
            'itemsize': a._dtype.itemsize, 'shape': [int(n) for n in a._shape], 'order': getattr(a, '_order', 'C'),
            'oid': a.zfile._p_oid.hex(), 'array': a._p_oid.hex(), 'since': a._p_serial.hex(),
        }
    json.dump({
        'arrays': out, 'file': root['file']._p_oid.hex(), 'set': members._p_oid.hex(),
        'absent': ['nothing', 'signals/x', 'oo/k100', 'oo/x', 'io/5', 'cycle/self', 'cycle/back/erp5/nothing', 'cycle/top',
                   'oi', 'oi/x', 'holder/number', 'holder/big', 'list/0', 'list/3', 'names/%41', 'names/x.json', 'names/5.0',
                   'names/%r5', 'file/blktab', 'names/' + 'y' * 240 + '%+/' + 'y' * 59, 'names/a%2fb', 'names/%2', 'x%'],
    }, sys.stdout)
    db.close()


if __name__ == '__main__':
    main(*sys.argv[1:])
