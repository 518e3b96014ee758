"""A client in Python that does what testclient.c says; it reads memory through numpy.

keep, kept and drop are about an array that outlives its revision.

Meanwhile a thread keeps the GIL busy, so that pins have to come through without it.
"""
import argparse
import sys
import threading
import zlib

import numpy as np

import wcfs


kept = []


def told(v):
    return 'ok %016x %d %d' % (v.at, v.size, v.blksize)


def sums(v, data):
    n = v.blksize
    return ' '.join(['ok %016x %d' % (v.at, v.size)] + ['%08x' % zlib.crc32(data(i * n, n)) for i in range(v.size // n)])


def from_memory(v, a=None):
    """bytes() copies with the GIL held: a page fault in there stops all of Python."""
    if a is None:
        a = np.asarray(v)
    assert a.dtype == np.uint8 and not a.flags.writeable and a.nbytes == v.size
    data = memoryview(a)

    def get(off, n):
        copy = bytes(data[off:off + n])
        assert np.frombuffer(data, '<u4', n // 4, off).sum() == np.frombuffer(copy, '<u4', n // 4).sum()
        return copy
    return get


def by_read(v):
    def read(off, n):
        buf = bytearray(n)
        if v.readinto(off, buf) != n:
            raise EOFError('short read')
        return buf
    return read


def do(v, cmd, args):
    if cmd in ('open', 'base'):
        v = wcfs.open(args[0], int(args[1], 16), int(args[2], 16), base=cmd == 'base')
        return v, told(v)
    if cmd == 'map':
        return v, sums(v, from_memory(v))
    if cmd == 'read':
        return v, sums(v, by_read(v))
    if cmd == 'resync':
        v.resync(int(args[0], 16))
        return v, told(v)
    if cmd == 'keep':  # an array of the present revision
        kept.append((v.at, v.size, v.blksize, np.asarray(v)))
        return v, 'ok'
    if cmd == 'kept':
        at, size, blksize, a = kept[-1]
        past = argparse.Namespace(at=at, size=size, blksize=blksize)
        return v, sums(past, from_memory(past, a))
    if cmd == 'drop':
        kept.clear()
        return v, 'ok'
    if cmd == 'pins':
        return v, 'ok %d' % sum(v.pinned(i) != 0 for i in range(v.size // v.blksize))
    if cmd == 'close':
        v.close()
        return None, 'ok'
    raise ValueError('unknown command')


def spin():
    n = 0
    while True:
        n += 1


def main():
    sys.setswitchinterval(1e-4)
    threading.Thread(target=spin, daemon=True).start()
    v = None
    for line in sys.stdin:
        cmd, *args = line.split()
        try:
            v, answer = do(v, cmd, args)
        except Exception as e:
            answer = 'error %s: %s' % (type(e).__name__, e)
        print(answer, flush=True)


main()
