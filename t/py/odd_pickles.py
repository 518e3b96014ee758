"""odd_pickles.py SEED N: prints N object records, made by the picklers that Python has, with what ZODB's unpickler
makes of them: [[record, class, state], ...] as JSON, the record in hex, the state in the notation of show().

The picklers are those of zodbpickle and of the standard library, written in C and in Python, at protocols 0 to 3, with
and without the PUTs that nobody needs. Protocol 0 knows no references that are tuples: its records have none.
"""

import io
import json
import pickle
import pickletools
import random
import sys

import zodbpickle.pickle
import zodbpickle.slowpickle
from zodbpickle import binary


class Class:
    """Stands for a class by its name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Ref:
    def __init__(self, oid, cls):
        self.oid, self.cls = oid, cls


def classes(pairs):
    """Make real classes of these names, since picklers look them up."""
    import types
    out = []
    for module, name in pairs:
        m = sys.modules.setdefault(module, types.ModuleType(module))
        c = type(name, (), {'__module__': module})
        setattr(m, name, c)
        out.append(c)
    return out


OURS = classes([('odd_file', 'ZBigFile'), ('odd_file', 'ZBlk0'), ('odd_tree', 'LOBTree'), ('odd_tree', 'LOBucketPy')])


def data(rnd):
    n = rnd.choice([0, 1, 2, 8, 255, 256, 300])
    b = bytes(rnd.choice([0, 10, 13, 39, 65, 92, 127, 128, 255]) for _ in range(n))
    return rnd.choice([bytes, binary, bytearray])(b)


def state(rnd, refs, depth=0):
    kind = rnd.randrange(7 if depth < 3 else 4)
    if kind == 0:
        return rnd.choice([0, 1, 255, 256, 65535, 65536, 2**31 - 1, -2**31, 2**31, 2**40, 2**63 - 1, -2**63, -1])
    if kind == 1:
        return data(rnd)
    if kind == 2:
        return rnd.choice(['', 'ascii', 'a\nb\\u', '\xe9\u20ac\U0001f600', "it's"])
    if kind == 3:
        return Ref(rnd.randbytes(8), rnd.choice(OURS)) if refs else None
    items = [state(rnd, refs, depth + 1) for _ in range(rnd.randrange(5))]
    if kind == 4 and items:
        if not isinstance(items[0], list):
            items.append(items[0])  # from the memo
    return items if kind == 6 else tuple(items)


def dump(rnd, pickler, protocol, cls, value):
    """Two pickles with one memo, or each with its own, as the ZODBs have done."""
    out = io.BytesIO()

    def persistent_id(obj):
        if isinstance(obj, Ref):
            return (binary(obj.oid), obj.cls) if rnd.random() < .8 else binary(obj.oid)
    p = type('P', (pickler,), {'persistent_id': lambda self, obj: persistent_id(obj)})(out, protocol)
    meta = rnd.choice([cls, (cls, None), (cls, ()), ((cls.__module__, cls.__name__), None)])
    p.dump(meta)
    first = out.tell()
    if rnd.random() < .5:
        p.clear_memo()
    p.dump(value)
    b = out.getvalue()
    if rnd.random() < .3:
        try:  # only a whole pickle can be optimized
            b = b[:first] + pickletools.optimize(b[first:])
        except (ValueError, KeyError, TypeError):  # it takes from the memo of the first
            pass
    return b


def show(v):
    if v is None:
        return 'None'
    if isinstance(v, int):
        return str(v)
    if isinstance(v, (bytes, bytearray)):
        return 'b' + v.hex()
    if isinstance(v, str):
        return 'u' + v.encode().hex()
    if isinstance(v, Class):
        return v.module + '.' + v.name
    if isinstance(v, Ref):
        return 'ref(%d)' % int.from_bytes(v.oid, 'big')
    inner = ' '.join(show(x) for x in v)
    return '[%s]' % inner if isinstance(v, list) else '(%s)' % inner


def load(rec):
    f = io.BytesIO(rec)
    real = {'_codecs', 'builtins', '__builtin__', 'zodbpickle', 'copyreg', 'copy_reg'}
    find = zodbpickle.pickle.Unpickler.find_class

    class U(zodbpickle.pickle.Unpickler):
        def find_class(self, module, name):
            return find(self, module, name) if module in real else Class(module, name)

        def persistent_load(self, pid):
            return Ref(pid[0] if isinstance(pid, tuple) else pid, None)
    u = U(f)
    meta = u.load()
    cls = meta[0] if isinstance(meta, tuple) else meta
    if isinstance(cls, tuple):
        cls = Class(*cls)
    return cls, u.load()


def main():
    rnd = random.Random(int(sys.argv[1]))
    out = []
    picklers = [zodbpickle.pickle.Pickler, zodbpickle.slowpickle.Pickler, pickle.Pickler, pickle._Pickler]
    refused = {}
    while len(out) < int(sys.argv[2]):
        protocol = rnd.randrange(4)
        pickler = rnd.choice(picklers)
        value = state(rnd, protocol > 0)
        rec = dump(rnd, pickler, protocol, rnd.choice(OURS), value)
        try:
            cls, value = load(rec)
        except Exception as e:  # ZODB cannot read it: nothing to compare with
            refused[repr(e)[:60]] = refused.get(repr(e)[:60], 0) + 1
            if sum(refused.values()) > len(out) + 200:
                raise SystemExit('Python refuses most: %s' % refused)
            continue
        out.append([rec.hex(), cls.module + '.' + cls.name, show(value)])
    print(json.dumps(out))
    if refused:
        print('not read by Python:', refused, file=sys.stderr)


main()
