package history

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// Plain is the content of a ZBlk revision that lies as it is in the database's file, where it never changes.
// Bytes past its end are zeros.
type Plain struct {
	File   *os.File // until Release
	Off    int64
	Len    int64
	Serial zodb.Tid // of the ZBlk

	check   func() error
	release func()
}

// Check is called once bytes were read and before they are used: an error says that they are something else.
func (p Plain) Check() error {
	if p.check == nil {
		return nil
	}
	return p.check()
}

// Release is called once File is not needed any more.
func (p Plain) Release() { p.release() }

// shapes remembers what was found out about records, so that each is looked at once. Nothing is kept
// open by it: a file that a pack replaced is known by its name only.
type shapes struct {
	mu sync.Mutex
	m  map[zodb.Oid]shape // mu; at most maxShapes
}

const maxShapes = 1 << 16

// shape is where a record lies and where in it the data is.
type shape struct {
	file      *os.File // for comparing; it may be closed
	pos, len  int64    // of the record
	off, size int64    // of the data, in the record
	plain     bool     // else LoadBlk is needed
}

func (s *shapes) get(oid zodb.Oid, x zodb.Extent) (shape, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh, ok := s.m[oid]
	return sh, ok && sh.file == x.File && sh.pos == x.Off && sh.len == x.Len
}

func (s *shapes) put(oid zodb.Oid, sh shape) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.m) >= maxShapes {
		clear(s.m)
	}
	s.m[oid] = sh
}

// Plain returns where the content of a ZBlk as of at lies in a file; at must not be newer than what is
// published. ok is false when it lies nowhere as it is, or when anything is wrong: Block knows more.
func (t *Tail) Plain(ctx context.Context, zblk zodb.Oid, at zodb.Tid, blksize int64) (p Plain, ok bool) {
	stor, is := t.stor.(zodb.Extender)
	if !is {
		return Plain{}, false
	}
	x, release, err := stor.ExtentAt(ctx, zblk, at)
	if err != nil {
		return Plain{}, false
	}
	sh, known := t.shapes.get(zblk, x)
	if !known {
		sh = shape{file: x.File, pos: x.Off, len: x.Len}
		sh.off, sh.size, sh.plain, err = zdata.FindPlain(zblk, io.NewSectionReader(x.File, x.Off, x.Len), x.Len)
		if x.Check != nil {
			err = errors.Join(err, x.Check())
		}
		if err == nil {
			t.shapes.put(zblk, sh)
		}
	}
	if err != nil || !sh.plain || sh.size > blksize {
		release()
		return Plain{}, false
	}
	t.answered(nil)
	t.meter.plain.Add(1)
	return Plain{File: x.File, Off: x.Off + sh.off, Len: sh.size, Serial: x.Serial, check: x.Check, release: release}, true
}
