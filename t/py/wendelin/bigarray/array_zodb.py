"""ZBigArray as a plain persistent class: the module name and the pickled state are those of wendelin.core.

    a = root['a'] = ZBigArray((10, 3), np.dtype('<f8'))
    a.write(np.arange(30.).reshape(10, 3))      # into its bigfile, block by block
    a.resize((12, 3))

State: a dict of _dtype, _shape and _order, which records of old do not have, and zfile, the ZBigFile.
"""

import numpy as np
from persistent import Persistent

from wendelin.bigfile.file_zodb import ZBigFile, ZBlk0


class ZBigArray(Persistent):
    def __init__(self, shape, dtype, order='C', blksize=4096):
        self._dtype = np.dtype(dtype)
        self._shape = tuple(shape)
        self._order = order
        self.zfile = ZBigFile(blksize)

    def resize(self, shape):
        self._shape = tuple(shape)

    def write(self, data):
        """Write all of the array; only blocks that differ are written."""
        raw = np.asarray(data, dtype=self._dtype).tobytes(order=getattr(self, '_order', 'C'))
        size = self.zfile.blksize
        for blk in range((len(raw) + size - 1) // size):
            piece = raw[blk * size:(blk + 1) * size]
            if self.zfile.get(blk)[:len(piece)] != piece:
                self.zfile.set(blk, piece, ZBlk0)
