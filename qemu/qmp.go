package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// qmp is the QEMU Machine Protocol: one JSON object a line, a reply to each command, events between.
type qmp struct {
	conn net.Conn
	turn chan struct{} // holds one token: who has it uses what is below
	r    *bufio.Reader // guarded by turn
	up   bool          // guarded by turn: capabilities are negotiated
}

func newQMP(conn net.Conn) *qmp {
	q := &qmp{conn: conn, turn: make(chan struct{}, 1), r: bufio.NewReader(conn)}
	q.turn <- struct{}{}
	return q
}

// command runs one command and waits for its reply.
func (q *qmp) command(ctx context.Context, name string, args any) error {
	select {
	case <-q.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { q.turn <- struct{}{} }()
	stop := context.AfterFunc(ctx, func() { q.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if !q.up {
		if err := q.exchange("qmp_capabilities", nil); err != nil {
			return fmt.Errorf("QMP: %w", err)
		}
		q.up = true
	}
	if err := q.exchange(name, args); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // the connection is of no more use
		}
		return fmt.Errorf("QMP %s: %w", name, err)
	}
	return nil
}

// exchange needs the turn.
func (q *qmp) exchange(name string, args any) error {
	msg := map[string]any{"execute": name}
	if args != nil {
		msg["arguments"] = args
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return err
	}
	for {
		line, err := q.r.ReadBytes('\n')
		if err != nil {
			return err
		}
		var reply struct {
			Return *json.RawMessage
			Error  *struct{ Class, Desc string }
		}
		if err := json.Unmarshal(line, &reply); err != nil {
			return err
		}
		switch {
		case reply.Error != nil:
			return fmt.Errorf("%s: %s", reply.Error.Class, reply.Error.Desc)
		case reply.Return != nil:
			return nil
		} // else an event, or the greeting
	}
}
