package neo

import "context"

// maxInFlight is how many bytes of answers are asked for ahead on one connection: enough for any network, and
// little enough that a storage need not keep many large records in memory.
const maxInFlight = 7 << 20

// takeRoom waits until an object may be asked for. Its size is not known: it is taken to be like others.
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
	c.loads.Add(1)
	return nil
}

// giveRoom gives back what a request took, whose answer had so many bytes. The largest of late counts most.
func (c *conn) giveRoom(q *call, size int64) {
	if q.room == 0 {
		return
	}
	if size > 0 {
		c.expect.Store(max(size, c.expect.Load()*7/8))
	}
	c.loads.Add(-1)
	c.room.Release(q.room)
}
