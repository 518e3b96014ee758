"""wcfs - bigfiles of a mounted wcfs as of a revision, as memory.

    import numpy, wcfs

    with wcfs.open('/mnt/wcfs', oid, at) as view:     # at: wcfs.HEAD or a transaction id
        a = numpy.asarray(view)                       # uint8, read-only, no copy
        b = numpy.frombuffer(view.data, '<f8')        # the same memory as numbers
        view.readinto(offset, buf)                    # a copy, of any part
        view.resync(wcfs.HEAD)                        # on to what was committed since

The memory shows the bytes of revision view.at while others commit: libwcfs.so, the C client, re-maps
blocks as the server asks for it, in a thread that needs no GIL. The library is looked for at $WCFS_LIB,
beside this file, and where the system keeps libraries. Without it, or with $WCFS_LIB set to nothing, there
is no memory: view.data raises BufferError and readinto reads the revision's own file, which is exact too,
but shares no page cache with other revisions.

What to know:
  - Arrays and buffers taken from a view go on showing the revision they were taken at, also after resync
    and close: the view's memory lives as long as they do. Drop them before resync to have it cheap.
  - When the server is lost, calls raise WcfsError, and touching the memory ends the process by SIGBUS.
  - After fork the memory is not there: open a view in the child.
"""
import builtins
import ctypes
import ctypes.util
import os
import time
import weakref

__all__ = ['HEAD', 'WcfsError', 'View', 'open']

HEAD = 0  # as `at`: the newest transaction

_ERR = 256  # WCFS_ERR


class WcfsError(OSError):
    """Why a view cannot be had, moved or read."""


def _load():
    name = os.environ.get('WCFS_LIB')
    if name is None:
        name = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'libwcfs.so')
        if not os.path.exists(name):
            name = ctypes.util.find_library('wcfs')
    if not name:
        return None
    lib = ctypes.CDLL(name)  # its calls release the GIL
    p, u64, size = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
    for fn, result, args in [
        ('open', p, [ctypes.c_char_p, u64, u64, ctypes.c_char_p]),
        ('open_base', p, [ctypes.c_char_p, u64, u64, ctypes.c_char_p]),
        ('data', p, [p]), ('size', size, [p]), ('blksize', size, [p]), ('at', u64, [p]),
        ('read', ctypes.c_ssize_t, [p, p, size, u64, ctypes.c_char_p]),
        ('resync', ctypes.c_int, [p, u64, ctypes.c_char_p]),
        ('pinned', u64, [p, u64]), ('close', None, [p]),
    ]:
        f = getattr(lib, 'wcfs_' + fn)
        f.restype, f.argtypes = result, args
    return lib


_lib = _load()


def open(mnt, oid, at=HEAD, base=False):
    """View of the ZBigFile oid as of transaction at, both int, below mount point mnt.

    base asks for base mode, see wcfs_open_base; on a 9P mount it is chosen anyway.
    """
    return View(_Mapped(mnt, oid, at, base) if _lib else _Plain(mnt, oid, at))


class View:
    """One bigfile as of a revision. Threads may share it, but for resync and close."""

    def __init__(self, impl):
        self._impl = impl

    @property
    def _i(self):
        if self._impl is None:
            raise ValueError('the view is closed')
        return self._impl

    at = property(lambda self: self._i.at, doc='the transaction that is shown')
    size = property(lambda self: self._i.size, doc='bytes, as of at')
    blksize = property(lambda self: self._i.blksize, doc='bytes of a block')

    @property
    def data(self):
        """The file as a read-only memoryview of bytes."""
        return self._i.data()

    @property
    def __array_interface__(self):
        return {'version': 3, 'typestr': '|u1', 'shape': (self.size,), 'data': self.data}

    def __buffer__(self, flags):  # Python 3.12
        return self.data

    def __len__(self):
        return self.size

    def readinto(self, offset, buf):
        """Copies bytes at offset into the writable buffer buf; returns how many, fewer at the end of the file."""
        if offset < 0:
            raise ValueError('negative offset')
        return self._i.readinto(offset, memoryview(buf).cast('B'))

    def pinned(self, blk):
        """The revision that block blk is shown at, 0 where it comes from the shared file."""
        return self._i.pinned(blk)

    def resync(self, at=HEAD):
        """Moves the view to a later transaction. Buffers taken before stay as they are."""
        self._impl = self._i.resync(at)

    def close(self):
        """Ends the view; its memory goes when no buffer of it is left."""
        self._impl = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class _Mapped:
    """A view of the C library. Buffers refer to it, so it is closed when nobody can look any more."""

    _v = None

    def __init__(self, mnt, oid, at, base):
        self.args = mnt, oid, base
        err = ctypes.create_string_buffer(_ERR)
        self._v = (_lib.wcfs_open_base if base else _lib.wcfs_open)(os.fsencode(mnt), oid, at, err)
        if not self._v:
            raise WcfsError(err.value.decode(errors='replace'))
        self._buf = lambda: None  # or a weak reference to the buffer that was given out

    def __del__(self):
        if self._v:
            _lib.wcfs_close(self._v)

    at = property(lambda self: _lib.wcfs_at(self._v))
    size = property(lambda self: _lib.wcfs_size(self._v))
    blksize = property(lambda self: _lib.wcfs_blksize(self._v))

    def data(self):
        buf = self._buf()
        if buf is None:
            addr = _lib.wcfs_data(self._v)
            if not addr and self.size:
                raise BufferError('blocks of %d bytes cannot be mapped: use readinto' % self.blksize)
            buf = _bytes_at(addr, self.size)
            buf.owner = self
            self._buf = weakref.ref(buf)
        return memoryview(buf).cast('B').toreadonly()

    def readinto(self, offset, buf):
        err = ctypes.create_string_buffer(_ERR)
        n = _lib.wcfs_read(self._v, (ctypes.c_char * len(buf)).from_buffer(buf), len(buf), offset, err)
        if n < 0:
            raise WcfsError(err.value.decode(errors='replace'))
        return n

    def pinned(self, blk):
        return _lib.wcfs_pinned(self._v, blk)

    def resync(self, at):
        mnt, oid, base = self.args
        if self._buf() is not None:  # somebody looks at this revision
            if at and at < self.at:
                raise WcfsError('@%016x is before @%016x: a view cannot go back' % (at, self.at))
            return _Mapped(mnt, oid, at, base)
        err = ctypes.create_string_buffer(_ERR)
        if _lib.wcfs_resync(self._v, at, err):
            raise WcfsError(err.value.decode(errors='replace'))
        return self


def _bytes_at(addr, size):
    kind = ctypes.c_ubyte * size
    return kind.from_address(addr) if size else kind()


class _Plain:
    """Without the library: reads of @at/, which never changes and never waits for anybody."""

    _fd = None

    def __init__(self, mnt, oid, at):
        self.args = mnt, oid
        self.at = _wait_head(mnt, at)
        try:
            self._fd = os.open('%s/@%016x/bigfile/%016x' % (os.fspath(mnt), self.at, oid), os.O_RDONLY | os.O_CLOEXEC)
            st = os.fstat(self._fd)
            self.size, self.blksize = st.st_size, st.st_blksize
            try:
                with _io_open('%s/.wcfs/blksize/%016x' % (os.fspath(mnt), oid)) as f:
                    self.blksize = int(f.read())
            except FileNotFoundError:
                pass  # only a part of the tree is mounted
        except OSError as e:
            raise WcfsError(str(e)) from e

    def __del__(self):
        if self._fd is not None:
            os.close(self._fd)

    def data(self):
        raise BufferError('there is no libwcfs.so to map it: use readinto')

    def readinto(self, offset, buf):
        done = 0
        while done < len(buf):
            try:
                n = os.preadv(self._fd, [buf[done:]], offset + done)
            except OSError as e:
                raise WcfsError(str(e)) from e
            if not n:
                break
            done += n
        return done

    def pinned(self, blk):
        return self.at

    def resync(self, at):
        if at and at < self.at:
            raise WcfsError('@%016x is before @%016x: a view cannot go back' % (at, self.at))
        return _Plain(*self.args, at)


_io_open = builtins.open


def _wait_head(mnt, at, limit=30):
    """The newest transaction for HEAD; waits until the server has come to at."""
    end = time.monotonic() + limit
    while True:
        try:
            with _io_open('%s/head/at' % os.fspath(mnt)) as f:
                head = int(f.read(), 16)
        except (OSError, ValueError) as e:
            raise WcfsError(str(e)) from e
        if at <= head:
            return at or head
        if time.monotonic() > end:
            raise WcfsError('@%016x has not come: head is @%016x' % (at, head))
        time.sleep(0.001)
