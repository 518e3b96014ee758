package neo

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/storagetest"
)

// What storages say about a load is final for it; silence, and what they say about themselves, is an outage.
func TestKinds(t *testing.T) {
	t.Parallel()
	send := func(m message) func(*fakeConn, uint32) { return func(c *fakeConn, id uint32) { c.send(id, m) } }
	object := func(change func(*answerObject)) func(*fakeConn, uint32) {
		a := &answerObject{oid: 1, serial: 50, next: none, data: text("a"), checksum: sha1.Sum(text("a")), dataSerial: none}
		change(a)
		return send(a)
	}
	fails := func(code uint32) func(*fakeConn, uint32) { return send(&answerError{code, nil}) }
	for name, c := range map[string]struct {
		answer func(c *fakeConn, id uint32)
		want   zodb.Kind
		is     error // nil: anything
	}{
		"no such object":  {fails(codeOIDDoesNotExist), zodb.KindAnswer, zodb.ErrNoObject},
		"no data":         {fails(codeOIDNotFound), zodb.KindAnswer, zodb.ErrNoData},
		"deleted":         {object(func(a *answerObject) { a.data, a.checksum = nil, [20]byte{} }), zodb.KindAnswer, zodb.ErrDeleted},
		"denied":          {fails(1), zodb.KindAnswer, nil},
		"not implemented": {fails(9), zodb.KindAnswer, nil},
		"not known":       {fails(77), zodb.KindAnswer, nil},
		"wrong checksum":  {object(func(a *answerObject) { a.checksum[0]++ }), zodb.KindAnswer, nil},
		"another object":  {object(func(a *answerObject) { a.oid = 2 }), zodb.KindAnswer, nil},
		"a serial after":  {object(func(a *answerObject) { a.serial = 99 }), zodb.KindAnswer, nil},
		"bad zlib":        {object(func(a *answerObject) { a.compression = 1 }), zodb.KindAnswer, nil},
		"no zlib":         {object(func(a *answerObject) { a.compression = 7 }), zodb.KindAnswer, nil},
		"bad .z":          {object(func(a *answerObject) { a.data, a.checksum = []byte(".zxx"), sha1.Sum([]byte(".zxx")) }), zodb.KindAnswer, nil},
		"another message": {send(&answerTransaction{}), zodb.KindAnswer, nil},
		"cannot be read":  {func(c *fakeConn, id uint32) { c.Write(unreadable(c.gen, id)) }, zodb.KindAnswer, nil},
		"too long":        {func(c *fakeConn, id uint32) { c.Write(tooLong(c.gen, id)) }, zodb.KindAnswer, nil},
		"behind":          {object(func(a *answerObject) { a.next = 55 }), zodb.KindOutage, ErrTimeout},
		"not ready":       {fails(codeNotReady), zodb.KindOutage, ErrTimeout},
		"protocol error":  {fails(codeProtocolError), zodb.KindOutage, ErrTimeout},
		"not its own":     {fails(codeNonReadableCell), zodb.KindOutage, ErrTimeout},
		"connection lost": {func(c *fakeConn, _ uint32) { c.Close() }, zodb.KindOutage, ErrTimeout},
		"garbage":         {func(c *fakeConn, _ uint32) { c.Write(bytes.Repeat([]byte{0xff}, 99)) }, zodb.KindOutage, ErrTimeout},
		"silence":         {func(*fakeConn, uint32) {}, zodb.KindOutage, ErrTimeout},
	} {
		for _, g := range generations() {
			t.Run(name+"/"+g.String(), func(t *testing.T) {
				t.Parallel()
				kindOfLoad(t, g, c.answer, c.want, c.is)
			})
		}
	}
}

func kindOfLoad(t *testing.T, g generation, answer func(c *fakeConn, id uint32), want zodb.Kind, is error) {
	f := newFake(t, g, 2)
	tid := f.store(map[zodb.Oid][]byte{3: text("good")})
	f.loads = func(c *fakeConn, id uint32, q *askObject) bool {
		if q.oid == 1 {
			answer(c, id)
		}
		return q.oid == 1
	}
	s := f.open(func(o *Options) { o.Timeout, o.MaxMessage = time.Minute, 1<<20 })
	if is == ErrTimeout {
		s.opt.Timeout = time.Second // of loads
	}
	for op, load := range map[string]func() error{
		"LoadAt":   func() error { _, err := s.LoadAt(context.Background(), 1, 60); return err },
		"SerialAt": func() error { _, _, err := s.SerialAt(context.Background(), 1, 60); return err },
	} {
		err := load()
		storagetest.WantKind(t, op, err, want)
		var le *zodb.LoadError
		if is != nil && !errors.Is(err, is) || !errors.As(err, &le) || le.Oid != 1 || le.At != 60 {
			t.Errorf("%s: %v; want %v", op, err, is)
		}
	}
	if is != ErrTimeout { // and no other load suffers
		if rec, err := s.LoadAt(context.Background(), 3, tid); err != nil || !bytes.Equal(rec.Data, text("good")) {
			t.Errorf("another object: %q, %v", rec.Data, err)
		}
	}
}

// unreadable is an answer to a load whose length is right and whose fields are not.
func unreadable(g generation, id uint32) []byte {
	if g == packed {
		return append([]byte{0x93, 0xce}, append(binary.BigEndian.AppendUint32(nil, id), 0xcd, 0x80, 0x20, 0x97, 1, 2, 3, 4, 5, 6, 7)...)
	}
	b := append(binary.BigEndian.AppendUint32(nil, id), 0x80, 0x20, 0, 0, 0, 5)
	return append(b, 1, 2, 3, 4, 5)
}

// tooLong begins an answer to a load that is longer than any that is taken.
func tooLong(g generation, id uint32) []byte {
	if g == packed {
		b := append([]byte{0x93, 0xce}, append(binary.BigEndian.AppendUint32(nil, id), 0xcd, 0x80, 0x20, 0x97)...)
		return append(b, 0xc6, 0x7f, 0xff, 0xff, 0xff, 0)
	}
	return append(binary.BigEndian.AppendUint32(nil, id), 0x80, 0x20, 0x7f, 0xff, 0xff, 0xff)
}

// A cluster that is not there, or not yet, is an outage; a truncated one is another database.
func TestOpenKinds(t *testing.T) {
	t.Parallel()
	f := newFake(t, packed, 1)
	f.nodes[0].l.Close()
	_, err := Open(context.Background(), f.url(), Options{Timeout: time.Second})
	storagetest.WantKind(t, "nobody there", err, zodb.KindOutage)

	f = newFake(t, packed, 1)
	f.hook = func(n *fakeNode, _ *fakeConn, m message) message {
		if _, ok := m.(*requestIdentification); ok {
			return &answerError{codeNotReady, nil}
		}
		return nil
	}
	_, err = Open(context.Background(), f.url(), Options{Timeout: 300 * time.Millisecond})
	storagetest.WantKind(t, "not operational", err, zodb.KindOutage)

	f = newFake(t, packed, 1)
	t1 := f.store(map[zodb.Oid][]byte{1: text("a")})
	t2 := f.store(map[zodb.Oid][]byte{1: text("b")})
	s := f.open()
	f.mu.Lock()
	f.tids = f.tids[:1]
	f.mu.Unlock()
	f.cut()
	err = s.Follow(context.Background(), t2, func(zodb.Commit) error { return nil })
	storagetest.WantKind(t, "truncated", err, zodb.KindOtherDatabase)
	_, err = s.LoadAt(context.Background(), 1, t1)
	storagetest.WantKind(t, "load of a truncated one", err, zodb.KindOtherDatabase)
}

// The last transaction that was seen must still be there, though the database has gone on since.
func TestTruncatedAndWritten(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		t1 := f.store(map[zodb.Oid][]byte{1: text("a")})
		t2 := f.store(map[zodb.Oid][]byte{1: text("b")})
		s := f.open()
		f.mu.Lock()
		f.tids = []zodb.Tid{t1, t2 + 1}
		f.txns[t2+1] = []zodb.Oid{1}
		f.mu.Unlock()
		f.cut()
		err := s.Follow(context.Background(), t2, func(zodb.Commit) error { return nil })
		storagetest.WantKind(t, "another past", err, zodb.KindOtherDatabase)
	})
}
