// Package p9srv serves the tree of package tree over 9P2000.L.
//
// It owns the wire: transports, messages, fids, tags, limits, deadlines and cancellation. It does not own names,
// data, revisions or watches (packages tree and zcore). github.com/hugelgupf/p9 has the types of the protocol, and
// is the client.
//
// # The way of a message
//
// A conn reads messages, one at a time. A session, which is a connection from one Tversion to the next, has the fids
// and the requests in flight. The table ops says what is done with each type of message:
//
//   - admit checks the request against its fid and changes the state of that, in the order in which messages come.
//   - do asks the tree and makes the reply. Most often the goroutine that reads messages does that itself; turn says
//     what happens when it takes long. The data of a Tread goes from the tree to the socket without a copy.
//   - settle changes fids by the outcome, in the critical section in which the tag becomes free.
//
// Messages that a read-only tree never obeys, and those that need no more than a look at their fid, are answered at once.
//
// # Invariants
//
//   - Replies of one connection are written one at a time under conn.wmu. A tag is free again from the
//     moment its reply is being written, never before; Rflush follows the reply of what it flushes.
//   - A request has a context: Tflush cancels it, Tclunk of its fid, and the end of its session. It holds its file, and a
//     Tclunk is done after all requests for its fid.
//   - A session ends when every request of it is over, and then closes every file, hence every handle and node. When a
//     connection ends its session has.
//   - Memory for replies is taken from a budget before the data is read. Reads that may wait for pins
//     (head and base files) can take half of it only: reads that a pin points to never wait for them.
//
// Lock order: conn.wmu, session.mu, Server.mu; budget.mu, listings.mu and conn.causeMu are leaves. None is held while the
// tree is called. conn.wmu is held while the socket is written, which is what it is for; the write deadline bounds that.
package p9srv
