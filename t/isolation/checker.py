"""As checker.c, for a Python program with numpy: the library is used through ctypes, and a fault under
the interpreter's lock waits for the library's own thread only.

usage: checker.py LIBRARY MNT LOG SECONDS SEED LAST OID...
"""

import bisect
import ctypes as ct
import random
import sys
import time

import numpy

ERR = 256
LAST = int(sys.argv[6])


def library(path):
    lib = ct.CDLL(path)
    lib.wcfs_open.restype = ct.c_void_p
    lib.wcfs_open.argtypes = [ct.c_char_p, ct.c_uint64, ct.c_uint64, ct.c_char_p]
    for name, res in [('data', ct.c_void_p), ('size', ct.c_size_t), ('blksize', ct.c_size_t), ('at', ct.c_uint64)]:
        fn = getattr(lib, 'wcfs_' + name)
        fn.restype, fn.argtypes = res, [ct.c_void_p]
    lib.wcfs_pinned.restype = ct.c_uint64
    lib.wcfs_pinned.argtypes = [ct.c_void_p, ct.c_uint64]
    lib.wcfs_resync.argtypes = [ct.c_void_p, ct.c_uint64, ct.c_char_p]
    lib.wcfs_close.argtypes = [ct.c_void_p]
    lib.wcfs_close.restype = None
    return lib


class Oracle:
    """What the writer's log says."""

    def __init__(self, path):
        self.log, self.rest, self.tids, self.blocks = open(path), '', [], {}

    def follow(self):
        *lines, self.rest = (self.rest + self.log.read()).split('\n')
        for line in lines:
            tid, *changes = line.split()
            tid = int(tid, 16)
            self.tids.append(tid)
            for c in changes:
                f, b, n = map(int, c.split(':'))
                tids, ns = self.blocks.setdefault((f, b), ([], []))
                tids.append(tid)
                ns.append(n)

    def n(self, f, b, at):
        tids, ns = self.blocks.get((f, b), ([], []))
        i = bisect.bisect_right(tids, at)
        return ns[i - 1] if i else 0

    def at_from(self, least):
        self.follow()
        first = max(len(self.tids) - LAST, bisect.bisect_left(self.tids, least))
        return random.choice(self.tids[first:] or [0])


def main():
    lib, mnt, oracle = library(sys.argv[1]), sys.argv[2].encode(), Oracle(sys.argv[3])
    end, oids = time.time() + int(sys.argv[4]), [int(a, 16) for a in sys.argv[7:]]
    random.seed(int(sys.argv[5]))
    start = int(open(sys.argv[2] + '/head/at').read(), 16)
    views, err = [None] * len(oids), ct.create_string_buffer(ERR)
    done = dict.fromkeys('checks bytes pinned kept resyncs opens drops'.split(), 0)
    while time.time() < end:
        f = random.randrange(len(oids))
        v, what = views[f], random.randrange(20)
        if v is None:
            at = oracle.at_from(start)
            if at:
                views[f] = lib.wcfs_open(mnt, oids[f], at, err)
                if not views[f]:
                    sys.exit('checker.py: open: %r' % err.value)
                done['opens'] += 1
        elif what == 0:
            lib.wcfs_close(v)
            views[f] = None
        elif what < 5:
            at = oracle.at_from(lib.wcfs_at(v))
            if at and lib.wcfs_resync(v, at, err):
                sys.exit('checker.py: resync: %r' % err.value)
            done['resyncs'] += 1
        else:
            at, size, blksize = lib.wcfs_at(v), lib.wcfs_size(v), lib.wcfs_blksize(v)
            words = blksize // 8
            array = numpy.ctypeslib.as_array((ct.c_uint64 * (size // 8)).from_address(lib.wcfs_data(v)))
            b = random.randrange(size // blksize)
            n = oracle.n(f, b, at)
            want = numpy.arange(words, dtype='u8') + ((n * 16 + f) * 1024 + b) * 65536 if n else numpy.zeros(words, 'u8')
            got = array[b * words:(b + 1) * words]
            if not (got == want).all():
                sys.exit('checker.py: WRONG BYTES: file %d block %d @%016x: %x, want %x; pinned to %016x'
                         % (f, b, at, got[0], want[0], lib.wcfs_pinned(v, b)))
            done['checks'] += 1
            done['bytes'] += blksize
            done['pinned'] += lib.wcfs_pinned(v, b) != 0
    for v in views:
        lib.wcfs_close(v)
    print(' '.join('%s %d' % kv for kv in done.items()))


main()
