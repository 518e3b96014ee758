package p9srv

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// op is what is done with messages of a type. The steps come in the order of the fields; each may be nil.
type op struct {
	refuse  linux.Errno                    // the answer of a tree that cannot change, whatever the message says
	frees   bool                           // it ends its fid: let in beyond the limit of requests
	prepare func(*request) error           // checks what needs no lock
	admit   func(*session, *request) error // checks the fid, and changes its state; s.mu is held
	do      func(*request) error           // nil: admit has made the reply
	settle  func(*session, *request, bool) // changes fids by the outcome; s.mu is held
}

// ops are the types that are known. Others, extended attributes among them, are answered
// EOPNOTSUPP. Tversion is the connection's, and Tflush the session's.
var ops = map[msgType]*op{
	tAttach:   {prepare: (*request).checkAttach, admit: admitAttachLocked, do: (*request).attach, settle: settleWalkLocked},
	tClunk:    {frees: true, admit: admitClunkLocked, do: (*request).clunk, settle: settleClunkLocked},
	tFlush:    {},
	tFsync:    {admit: fsyncLocked},
	tGetattr:  {do: (*request).getattr},
	tLopen:    {admit: admitOpenLocked, do: (*request).open, settle: settleOpenLocked},
	tRead:     {admit: admitReadLocked, do: (*request).read},
	tReaddir:  {admit: admitReaddirLocked, do: (*request).readdir},
	tReadlink: {do: (*request).readlink},
	tRemove:   {frees: true, admit: admitClunkLocked, do: (*request).remove, settle: settleClunkLocked},
	tSetattr:  {admit: setattrLocked},
	tStatfs:   {admit: statfsLocked},
	tWalk:     {admit: admitWalkLocked, do: (*request).walk, settle: settleWalkLocked},
	tWrite:    {admit: admitWriteLocked, do: (*request).write},

	tAuth:     {refuse: linux.ENOENT}, // to Linux and diod: no authentication is needed
	tGetlock:  {refuse: linux.ENOLCK},
	tLcreate:  {refuse: linux.EROFS},
	tLink:     {refuse: linux.EROFS},
	tLock:     {refuse: linux.ENOLCK},
	tMkdir:    {refuse: linux.EROFS},
	tMknod:    {refuse: linux.EROFS},
	tRename:   {refuse: linux.EROFS},
	tRenameat: {refuse: linux.EROFS},
	tSymlink:  {refuse: linux.EROFS},
	tUnlinkat: {refuse: linux.EROFS},
}

var unknown = &op{refuse: linux.EOPNOTSUPP}

// request is one message from its arrival to its reply, with memory for what most replies are.
type request struct {
	s       *session
	op      *op
	msg     message
	ctx     context.Context
	cancel  context.CancelFunc // nil: it never waits
	file    *file              // of its fid; nil for attaches, walks and flushes
	from    *nodeRef           // where a walk starts; given back in finish
	old     *file              // of a walk that replaces the file of its fid, else nil
	busy    bool               // others were in flight when it came
	later   bool               // a Tclunk that the last request for its fid does
	flushes []*request         // that wait for it, in order of arrival; guarded by s.mu

	// Results: of the goroutine that does it.
	reply   frame
	newFile *file // of a walk that got to its end
	data    tree.Data
	taken   int64    // bytes of the budget
	lent    [][]byte // by the server's buffers

	small  [32]byte
	pieces [3]zcore.Piece
}

// frame begins the reply.
func (r *request) frame(typ msgType) frame {
	return append(frame(r.small[:4]), byte(typ), byte(r.msg.tag), byte(r.msg.tag>>8))
}

// longFrame begins a reply of n bytes.
func (r *request) longFrame(typ msgType, n int) frame {
	return append(make(frame, 0, n), r.frame(typ)...)
}

// fail makes err the reply.
func (r *request) fail(err error) {
	r.reply = r.frame(rLerror).u32(uint32(errnoOf(err)))
}

// finish gives back what the request holds. It is called once, when the reply is written or dropped.
func (r *request) finish() {
	r.cancel()
	if r.data.Done != nil {
		r.data.Done()
	}
	for _, b := range r.lent {
		r.s.srv.buffers.put(b)
	}
	if r.taken > 0 {
		r.s.conn.bytes.put(r.taken, r.file.pins())
	}
	if r.from != nil {
		r.from.drop()
	}
	if r.file != nil && !r.op.frees {
		r.file.drop()
	}
	if r.old != nil && r.newFile != nil {
		r.old.drop()
	}
}

// handle does with a message what is to be done. An error means that the connection is to be closed, or that
// another goroutine reads on.
func (s *session) handle(r *request, body []byte, bodyErr error) error {
	if s.inFlight(r.msg.tag) {
		return ErrDuplicateTag
	}
	r.s = s
	if r.op = ops[r.msg.typ]; r.op == nil {
		r.op = unknown
	}
	if err := r.check(body, bodyErr); err != nil {
		return s.refuse(r, err)
	}
	if r.msg.typ == tFlush {
		return s.flush(r)
	}
	var err error
	r.busy, err = s.admit(r)
	switch {
	case err != nil:
		return s.refuse(r, err)
	case r.op.do == nil:
		s.conn.write(r.reply)
		return nil
	case r.later:
		return nil
	}
	return s.start(r)
}

// check is for what needs no look at fids.
func (r *request) check(body []byte, bodyErr error) error {
	switch {
	case r.op.refuse != 0:
		return r.op.refuse
	case bodyErr != nil:
		return bodyErr
	}
	if err := r.msg.parseBody(body); err != nil {
		return err
	}
	if r.msg.tag == noTag { // for Tversion only
		return linux.EINVAL
	}
	if r.op.prepare != nil {
		return r.op.prepare(r)
	}
	return nil
}

// refuse answers with an error.
func (s *session) refuse(r *request, err error) error {
	s.conn.refused(err)
	r.fail(err)
	s.conn.write(r.reply)
	return nil
}

// run does a request that is in flight, and then the Tclunk that waited for it, if there is one.
func (s *session) run(r *request) {
	for r != nil {
		began := time.Now()
		err := r.doSafely()
		if err != nil {
			r.fail(err)
		}
		r = s.answer(r, err == nil)
		s.conn.turn.fast.Store(time.Since(began) < quick)
	}
}

// doSafely makes a panic an error: one request that fails badly must not end the others.
func (r *request) doSafely() (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.s.srv.log.warn("9p: a request failed badly", "type", fmt.Sprint(r.msg.typ), "cause", p, "stack", string(debug.Stack()))
			err = linux.EFAULT
		}
	}()
	return r.op.do(r)
}
