package zeo

import "context"

// maxInFlight is how many bytes of replies are asked for ahead: three blocks of 2 MiB, which is enough for
// any network. What a ZEO server cannot send at once it joins and copies: with a fourth block on the way
// it takes twice the processor time for each, and goes on to do so.
const maxInFlight = 7 << 20

// takeRoom waits until a load may be put on the wire. Its size is not known: it is taken to be like others.
func (c *conn) takeRoom(ctx context.Context, q *call) error {
	room := max(min(c.expect.Load(), maxInFlight/2), maxInFlight/int64(c.opt.Window))
	if !c.room.TryAcquire(room) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		gone := context.AfterFunc(c.life, func() { cancel(&lostError{c.cause()}) })
		defer gone()
		if c.room.Acquire(ctx, room) != nil {
			return context.Cause(ctx)
		}
	}
	q.room = room
	return nil
}

// giveRoom gives back what a load took, whose reply had so many bytes. The largest of late counts most: one
// too large costs the server more than small ones gain by being asked for together.
func (c *conn) giveRoom(q *call, size int64) {
	c.expect.Store(max(size, c.expect.Load()*7/8))
	c.room.Release(q.room)
}
