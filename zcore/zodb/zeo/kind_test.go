package zeo

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/storagetest"
)

// raises answers a call with an exception.
func raises(class string, args ...any) func(c *fakeConn, id int64, method string, _ []any) {
	return func(c *fakeConn, id int64, method string, _ []any) {
		c.send(id, int64(2), replyName, []any{class, args})
	}
}

// sends answers a load with a value.
func sends(v any) func(c *fakeConn, id int64, method string, _ []any) {
	return func(c *fakeConn, id int64, method string, _ []any) { c.reply(id, v) }
}

// What a server says about a load is final for it, unless it says that what it stands on is away; silence is an outage.
func TestKinds(t *testing.T) {
	t.Parallel()
	serial := idBytes(zodb.Tid(50))
	rec := func(data string) any { return []any{[]byte(data), serial, nil} }
	for name, c := range map[string]struct {
		answer func(c *fakeConn, id int64, method string, args []any)
		want   zodb.Kind
		is     error // nil: anything
	}{
		"no such object":       {raises("ZODB.POSException.POSKeyError", idBytes(zodb.Oid(1))), zodb.KindAnswer, zodb.ErrNoObject},
		"no data":              {sends(nil), zodb.KindAnswer, zodb.ErrNoData},
		"damaged":              {raises("ZODB.FileStorage.format.CorruptedDataError", "bad"), zodb.KindAnswer, nil},
		"EIO of a sector":      {raises("builtins.OSError", int64(5), "Input/output error"), zodb.KindAnswer, nil},
		"a bug of the server":  {raises("builtins.AttributeError", "x"), zodb.KindAnswer, nil},
		"odd exception":        {func(c *fakeConn, id int64, _ string, _ []any) { c.send(id, int64(2), replyName, int64(7)) }, zodb.KindAnswer, nil},
		"not a revision":       {sends("x"), zodb.KindAnswer, nil},
		"a serial after at":    {sends([]any{[]byte("x"), idBytes(zodb.Tid(99)), nil}), zodb.KindAnswer, nil},
		"no data string":       {sends([]any{int64(1), serial, nil}), zodb.KindAnswer, nil},
		"bad zlib":             {sends(rec(".zxx")), zodb.KindAnswer, nil},
		"encrypted":            {sends(rec(".exx")), zodb.KindAnswer, nil},
		"cannot be decoded":    {func(c *fakeConn, id int64, _ string, _ []any) { c.frame(undecodable(id)) }, zodb.KindAnswer, nil},
		"too long":             {func(c *fakeConn, id int64, _ string, _ []any) { c.Write(tooLongReply(id)) }, zodb.KindAnswer, nil},
		"storage behind away":  {raises("ZEO.Exceptions.ClientDisconnected"), zodb.KindOutage, nil},
		"database behind away": {raises("psycopg2.OperationalError", "server closed the connection"), zodb.KindOutage, nil},
		"no descriptors":       {raises("builtins.OSError", int64(24), "Too many open files"), zodb.KindOutage, nil},
		"no memory":            {raises("builtins.MemoryError"), zodb.KindOutage, nil},
		"closing its files":    {raises("builtins.ValueError", "seek of closed file"), zodb.KindOutage, nil},
		"connection lost":      {func(c *fakeConn, _ int64, _ string, _ []any) { c.Close() }, zodb.KindOutage, nil},
		"garbage for a frame":  {func(c *fakeConn, _ int64, _ string, _ []any) { c.frame([]byte("garbage")) }, zodb.KindOutage, nil},
		"silence":              {func(*fakeConn, int64, string, []any) {}, zodb.KindOutage, ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(fc *fakeConn, id int64, method string, args []any) {
				if method == "loadBefore" || method == "history" {
					c.answer(fc, id, method, args)
				} else {
					fc.reply(id, idBytes(zodb.Tid(100)))
				}
			})
			s := openFake(t, f, time.Second)
			for op, load := range map[string]func() error{
				"LoadAt":   func() error { _, err := s.LoadAt(context.Background(), 1, 60); return err },
				"SerialAt": func() error { _, _, err := s.SerialAt(context.Background(), 1, 60); return err },
			} {
				err := load()
				storagetest.WantKind(t, op, err, c.want)
				if c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("%s: %v; want %v", op, err, c.is)
				}
			}
		})
	}
}

// undecodable is a reply whose arguments cannot be decoded: it has the opcode of a set.
func undecodable(id int64) []byte {
	b := pickleValue([]byte(pickleHead), id)
	b = pickleValue(pickleValue(b, int64(0)), replyName)
	return append(b, 0x8f, 't', '.')
}

// tooLongReply begins a reply that is longer than any client takes.
func tooLongReply(id int64) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, 1<<31), undecodable(id)...)
	return append(b, make([]byte, 100)...)
}

// A reply that cannot be read is an answer to who asked for it, and to nobody else: other loads on the connection succeed.
func TestUnreadableReplyIsOneAnswer(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func(c *fakeConn, id int64){
		"cannot be decoded": func(c *fakeConn, id int64) { c.frame(undecodable(id)) },
		"too long":          func(c *fakeConn, id int64) { c.Write(tooLongReply(id)) },
	} {
		t.Run(name, func(t *testing.T) {
			var waiting int64 // the id of a load that is answered after the bad one
			seen := make(chan struct{})
			f := newFake(t, func(c *fakeConn, id int64, method string, args []any) {
				switch {
				case method != "loadBefore":
					c.reply(id, idBytes(zodb.Tid(100)))
				case string(args[0].([]byte)) == string(idBytes(zodb.Oid(1))):
					bad(c, id)
					c.revision(waiting, "good", 50, 0)
				case c.n == 1 && waiting == 0:
					waiting = id
					close(seen)
				default: // asked again on another connection
					c.revision(id, "good", 50, 0)
				}
			})
			s := openFake(t, f, 10*time.Second)
			good := make(chan error, 1)
			go func() {
				_, err := s.LoadAt(context.Background(), 2, 60)
				good <- err
			}()
			<-seen
			_, err := s.LoadAt(context.Background(), 1, 60)
			storagetest.WantKind(t, name, err, zodb.KindAnswer)
			if err := <-good; err != nil {
				t.Errorf("a load beside it: %v", err)
			}
		})
	}
}
