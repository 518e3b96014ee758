package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"wcfs/zcore/client"
	"wcfs/zcore/zodb"
)

// watchCmd is `wcfs watch DIR OID`.
type watchCmd struct {
	Dir string `arg:"" help:"Where wcfs is mounted, over FUSE or 9P."`
	Oid string `arg:"" help:"Object id of the ZBigFile, 16 hex digits."`
	At  string `placeholder:"TID" help:"Revision to watch as of; head by default."`
}

// Run prints the pins that a client at this revision gets, until a signal comes or the server ends it.
func (c *watchCmd) Run(p *program) error {
	if err := mustBe(c.Dir, mountArg, aMount); err != nil {
		return err
	}
	oid, err := zodb.ParseOid(c.Oid)
	if err != nil {
		return usagef("OID: %v", err)
	}
	at := client.Head
	if c.At != "" {
		if at, err = zodb.ParseTid(c.At); err != nil {
			return usagef("--at: %v", err)
		}
	}
	conn, err := client.Connect(c.Dir)
	if errors.Is(err, syscall.ENOTCONN) {
		return deadMount(c.Dir)
	}
	if err != nil {
		return err
	}
	pins := newPinQueue()
	v, err := conn.Open(p.ctx, oid, at, client.Options{OnPin: pins.put})
	if err != nil {
		return err
	}
	defer v.Close()
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	go func() { // the view is lost: print what came, then end
		<-v.Lost()
		cancel()
	}()
	if _, err := fmt.Fprintf(p.stdout, "watch %s @%s\n", oid, v.At()); err != nil {
		return err
	}
	for {
		list := pins.take(ctx)
		for _, pin := range list {
			if _, err := fmt.Fprintln(p.stdout, pin); err != nil {
				return err
			}
		}
		if len(list) == 0 {
			return v.Err()
		}
	}
}

// pinQueue keeps the client's acknowledgements from waiting for whoever reads the output: there the server
// would take the delay for a fault.
type pinQueue struct {
	more chan struct{} // cap 1

	mu   sync.Mutex
	pins []client.Pin // mu
}

func newPinQueue() *pinQueue { return &pinQueue{more: make(chan struct{}, 1)} }

func (q *pinQueue) put(p client.Pin) {
	q.mu.Lock()
	q.pins = append(q.pins, p)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// take waits for pins; none: ctx is done.
func (q *pinQueue) take(ctx context.Context) []client.Pin {
	for {
		q.mu.Lock()
		list := q.pins
		q.pins = nil
		q.mu.Unlock()
		if len(list) > 0 {
			return list
		}
		select {
		case <-q.more:
		case <-ctx.Done():
			return nil
		}
	}
}
