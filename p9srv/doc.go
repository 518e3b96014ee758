// Package p9srv serves the tree of package tree over 9P2000.L.
//
// It owns the wire: transports, a guard that reads every message before anything else does, limits,
// deadlines and cancellation. It does not own names, data, revisions or watches (packages tree and
// zcore). The codec, fid table and reference counts are those of github.com/hugelgupf/p9.
//
// # The guard and the library
//
// The library has no cancellation, no limits and no deadlines; it forgets no name that was ever walked,
// keeps a buffer of msize for every read and hides uname, aname and the tag of a request. So every session
// (a connection from one Tversion to the next) has a p9.Server of its own that sees only what the
// guard lets through, in a form in which none of that matters:
//
//   - Each request in flight has a slot, a small number that is its tag inside the library. The library
//     passes no context to a File, so the slot is also put where the library hands something through
//     untouched: the offset of Twrite and Treaddir, the mask of Tgetattr, the upper bits of the flags
//     of Tlopen, the name of Twalk. A File finds its request, and the request's context, by it.
//   - Tread does not go through the library at all: the guard knows the File, and keeps it open while it
//     reads. Most often the goroutine that reads messages does that itself; see turn for what happens when
//     it takes long. The data goes from the tree into the reply without copying.
//   - Twrite carries no data through the library: it is left with the request.
//   - Every walk and attach is a walk of one name, the slot, from the root; so the library's tree of
//     names has at most as many entries as there are slots.
//   - A message that a read-only tree never obeys is answered by the guard. A fid that is not open, or is
//     being opened, or is unknown never gets to the library, which would race on such.
//
// # Invariants
//
//   - Replies of one connection are written one at a time under conn.wmu. A tag is free again from the
//     moment its reply is being written, never before; Rflush follows the reply of what it flushes.
//   - When a session ends every request's context is cancelled, then the library returns, and by then it
//     has closed every File, hence every handle and node. When a connection ends its session has.
//   - Memory for replies is taken from a budget before the data is read. Reads that may wait for pins
//     (head and base files) can take half of it only: reads that a pin points to never wait for them.
//
// Lock order: conn.wmu, session.mu, Server.mu; budget.mu is a leaf. None is held while the tree is called. conn.wmu is held
// while the socket is written, which is what it is for; the write deadline bounds that.
package p9srv
