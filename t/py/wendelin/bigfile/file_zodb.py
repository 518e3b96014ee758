"""ZBigFile and its blocks as plain persistent classes, so that Python ZODB can write and read them.

The module name and the pickled states are those of wendelin.core; nothing else is: there is no
virtual memory here. Typical use:

    f = root['f'] = ZBigFile(2 << 20)
    f.set(3, b'data', ZBlk1)            # block 3; zeros follow up to its end
    transaction.commit()
    f.get(3)                            # blksize bytes
    f.hole(3)

States:
    ZBigFile      (blksize, LOBTree: block number -> ZBlk*)
    ZBlk0, ZBlk   bytes, trailing zeros cut
    ZBlk1         IOBTree: offset -> ZData
    ZData         bytes
"""

from BTrees.IOBTree import IOBTree
from BTrees.LOBTree import LOBTree
from persistent import Persistent
from zodbpickle import binary


class ZBlk0(Persistent):
    """A block kept in one piece."""

    data = b''

    def set(self, data):
        self.data = data.rstrip(b'\0')
        self._p_changed = True

    def get(self):
        self._p_activate()
        return self.data

    def __getstate__(self):
        return binary(self.data)

    def __setstate__(self, state):
        self.data = state


class ZBlk(ZBlk0):
    """The older name of ZBlk0."""


class ZData(Persistent):
    """One chunk of a ZBlk1."""

    data = b''

    def __init__(self, data):
        self.data = data

    def __getstate__(self):
        return binary(self.data)

    def __setstate__(self, state):
        self.data = state

    def put(self, data):
        self.data = data
        self._p_changed = True

    def get(self):
        self._p_activate()
        return self.data


class ZBlk1(Persistent):
    """A block kept in chunks; those that are all zeros are left out."""

    chunksize = 4096

    def __init__(self):
        self.chunks = IOBTree()

    def set(self, data):
        """Write the chunks that differ, and always the block object itself."""
        for start in range(0, max(len(data), self._end()), self.chunksize):
            piece = data[start:start + self.chunksize].rstrip(b'\0')
            chunk = self.chunks.get(start)
            if chunk is None and piece:
                self.chunks[start] = ZData(piece)
            elif chunk is not None and not piece:
                del self.chunks[start]
            elif chunk is not None and chunk.get() != piece:
                chunk.put(piece)
        self._p_changed = True

    def _end(self):
        return self.chunks.maxKey() + self.chunksize if self.chunks else 0

    def get(self):
        data = bytearray(self._end())
        for start, chunk in self.chunks.items():
            piece = chunk.get()
            data[start:start + len(piece)] = piece
        return bytes(data)

    def __getstate__(self):
        return self.chunks

    def __setstate__(self, state):
        self.chunks = state


class ZBigFile(Persistent):
    """A file of blocks of blksize bytes; blocks without a ZBlk are zeros."""

    def __init__(self, blksize):
        self.blksize = blksize
        self.blktab = LOBTree()

    def __getstate__(self):
        return (self.blksize, self.blktab)

    def __setstate__(self, state):
        self.blksize, self.blktab = state

    def set(self, blk, data, kind=ZBlk0):
        """Set the data of a block; a ZBlk of another kind is replaced by a new one."""
        if len(data) > self.blksize:
            raise ValueError('%d bytes for a block of %d' % (len(data), self.blksize))
        zblk = self.blktab.get(blk)
        if type(zblk) is not kind:
            zblk = self.blktab[blk] = kind()
        zblk.set(data)

    def hole(self, blk):
        """Make zeros of a block."""
        del self.blktab[blk]

    def get(self, blk):
        """Return the blksize bytes of a block."""
        zblk = self.blktab.get(blk)
        data = zblk.get() if zblk is not None else b''
        return data[:self.blksize].ljust(self.blksize, b'\0')

    def size(self):
        """Return the size of the file in bytes."""
        return (self.blktab.maxKey() + 1) * self.blksize if self.blktab else 0
