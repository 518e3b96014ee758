package filestorage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// The file may be written over in place: a backup copied onto it, say. Then records are no longer where they were, and what
// is read at their positions are bytes of another future. So each time the file has changed, the last transaction known
// must still lie where it lay: it is looked at before anything new is taken from the file, and after each load, before
// the bytes are given out. When it does not, that is final.

// mark is the last transaction known of a file, and how it looks there.
type mark struct {
	tid         zodb.Tid // 0: there is none, and first is what the file begins with
	pos, end    int64
	first, last []byte // the bytes from pos on, and those before end

	older []header // of transactions before it, ascending, the farther back the fewer
}

// header is a transaction's, and where it is.
type header struct {
	pos   int64
	bytes [fsformat.TxnHdrLen]byte
}

const (
	markMax  = 512 // how much of either end of the last transaction is compared
	olderMax = 24  // headers kept: a file may be written over from its beginning, and the end come last
	olderAt  = 64  // transactions looked back at when the file is opened
)

// state is what tells cheaply that a file was not written to.
type state struct {
	size  int64
	mtime time.Time
}

// settled is how old the last change of a file must be for its mtime to tell a later one: the kernel's clock for
// that is coarse.
const settled = 50 * time.Millisecond

// identity is what a file is checked against.
type identity struct {
	mark atomic.Pointer[mark]
	seen atomic.Pointer[state] // the file was right when it was in this state
	bad  atomic.Pointer[error] // it was found to be another database's; never reset
}

// takeMark makes the transaction before f.end, or else the beginning of the file, what the file is known by. It must be
// the one that was read: want is its header, nil for whatever is there.
func (f *dataFile) takeMark(want *fsformat.TxnHeader) error {
	m := &mark{end: f.end}
	if f.end > fsformat.MagicLen {
		t, err := f.before(f.end)
		if err != nil {
			return err
		}
		if want != nil && t.TxnHeader != *want {
			return f.other(fmt.Sprintf("transaction %s, which was there a moment ago", want.Tid), fmt.Sprintf("transaction %s", t.Tid))
		}
		m.tid, m.pos = t.Tid, t.pos
	}
	if err := f.markOlder(m); err != nil {
		return err
	}
	n := min(f.end-m.pos, markMax)
	m.first, m.last = make([]byte, n), make([]byte, n)
	if _, err := f.f.ReadAt(m.first, m.pos); err != nil {
		return readError(m.pos, err)
	}
	if _, err := f.f.ReadAt(m.last, m.end-n); err != nil {
		return readError(m.end-n, err)
	}
	f.id.mark.Store(m)
	return nil
}

// markOlder fills older of a new mark.
func (f *dataFile) markOlder(m *mark) error {
	if was := f.id.mark.Load(); was != nil {
		m.older = slices.Clone(was.older)
		if was.tid != 0 {
			h := header{pos: was.pos}
			copy(h.bytes[:], was.first)
			m.older = append(m.older, h)
		}
		if len(m.older) > olderMax { // the older half is thinned out
			keep := m.older[:0]
			for i, h := range m.older {
				if i%2 == 0 || i > olderMax/2 {
					keep = append(keep, h)
				}
			}
			m.older = keep
		}
		return nil
	}
	for n, pos := 1, m.pos; n <= olderAt && pos > fsformat.MagicLen; n++ {
		t, err := f.before(pos)
		if err != nil && zodb.KindOf(err) == zodb.KindAnswer {
			break // what is farther back cannot be found; whoever needs it is told
		}
		if err != nil {
			return err
		}
		if pos = t.pos; n&(n-1) == 0 || n < olderMax/2 {
			h := header{pos: pos}
			if _, err := f.f.ReadAt(h.bytes[:], pos); err != nil {
				return readError(pos, err)
			}
			m.older = append(m.older, h)
		}
	}
	slices.Reverse(m.older)
	return nil
}

// check says whether the file still is the one that was opened. It costs one system call where nothing was written since
// the last check; force looks in any case.
func (f *dataFile) check(force bool) error {
	if bad := f.id.bad.Load(); bad != nil {
		return *bad
	}
	m := f.id.mark.Load() // before the size is asked for: the watcher may go on
	st, err := f.f.Stat()
	if err != nil {
		return readError(0, err)
	}
	now := state{st.Size(), st.ModTime()}
	if seen := f.id.seen.Load(); !force && seen != nil && *seen == now {
		return nil
	}
	if err := f.look(m, st); err != nil {
		return err
	}
	if time.Since(now.mtime) > settled {
		f.id.seen.Store(&now)
	}
	return nil
}

// look compares the mark with the file.
func (f *dataFile) look(m *mark, st fs.FileInfo) error {
	want := fmt.Sprintf("transaction %s of %d bytes at position %d", m.tid, m.end-m.pos, m.pos)
	if m.tid == 0 {
		want = "the beginning of a FileStorage"
	}
	if st.Size() < m.end {
		return f.other(want, fmt.Sprintf("a file of %d bytes", st.Size()))
	}
	same := func(pos int64, there []byte) (bool, error) {
		var buf [markMax]byte
		got := buf[:len(there)]
		if _, err := f.f.ReadAt(got, pos); err != nil && !errors.Is(err, io.EOF) { // EOF: cut since its size was asked for
			if err = readError(pos, err); zodb.KindOf(err) == zodb.KindAnswer {
				return true, nil // a sector that cannot be read tells nothing, and what is elsewhere can be read
			}
			return false, err
		}
		return bytes.Equal(got, there), nil
	}
	ok, err := same(m.pos, m.first)
	if ok && err == nil {
		ok, err = same(m.end-int64(len(m.last)), m.last)
	}
	if err != nil {
		return err
	}
	if !ok {
		return f.other(want, f.found(m))
	}
	for i := range m.older {
		h := &m.older[i]
		if ok, err := same(h.pos, h.bytes[:]); err != nil {
			return err
		} else if !ok {
			tid := zodb.Tid(binary.BigEndian.Uint64(h.bytes[:]))
			return f.other(fmt.Sprintf("transaction %s at position %d", tid, h.pos), "something else")
		}
	}
	return nil
}

// found tells what there is in place of the mark.
func (f *dataFile) found(m *mark) string {
	var b [fsformat.TxnHdrLen]byte
	if _, err := f.f.ReadAt(b[:], m.pos); err == nil && m.tid != 0 {
		if h, err := fsformat.DecodeTxn(b[:]); err == nil && h.Tid != m.tid {
			return fmt.Sprintf("what would be transaction %s", h.Tid)
		} else if err == nil && h.Len != m.end-m.pos-fsformat.TailLen {
			return fmt.Sprintf("that transaction with %d bytes", h.Len+fsformat.TailLen)
		}
	}
	return "something else"
}

// other notes for good that the file is another database's, and returns the error that says so.
func (f *dataFile) other(want, found string) error {
	err := zodb.OtherDatabase(fmt.Errorf("%s is not the database any more that was served: it was written over in place "+
		"(a backup was restored, or it was cut): expected %s, found %s; restart wcfs to serve what it is now", f.path, want, found))
	f.id.bad.CompareAndSwap(nil, &err)
	return *f.id.bad.Load()
}

// phantom looks for what a Python process cut off when it opened the file: the rest of a commit that was killed
// in the middle. Its tid is what that process gives as the last transaction, and there are clients at it; so it
// counts as one here, of no objects. The cut bytes were put into Data.fs.tr0, Data.fs.tr1 and so on.
type cutOff struct {
	next int // the number of the first such file that is not there
}

// tid returns the tid of what was cut off at end and is newer than last, 0 for nothing.
func (c *cutOff) tid(open func(n int) (fs.File, error), lock fs.FileInfo, last zodb.Tid, end int64) zodb.Tid {
	for {
		file, err := open(c.next)
		if err != nil {
			break
		}
		file.Close()
		c.next++
	}
	if c.next == 0 {
		return 0
	}
	file, err := open(c.next - 1)
	if err != nil {
		return 0
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil || lock != nil && lock.ModTime().After(st.ModTime()) {
		return 0 // it was opened once more since, and tells the transaction before
	}
	b := make([]byte, 64<<10)
	n, _ := io.ReadFull(file, b)
	return cutTid(b[:n], last, end)
}

// cutTid returns the tid of a transaction that begins in b, as it was cut off at end of a file.
func cutTid(b []byte, last zodb.Tid, end int64) zodb.Tid {
	if len(b) < fsformat.TxnHdrLen {
		return 0 // Python did not see a tid either
	}
	tid := zodb.Tid(binary.BigEndian.Uint64(b))
	if tid <= last || tid > zodb.TidMax {
		return 0
	}
	h, err := fsformat.DecodeTxn(b[:fsformat.TxnHdrLen])
	if err != nil {
		return tid
	}
	// A record says where its transaction began.
	if at := h.HdrLen(); int64(len(b)) >= at+fsformat.DataHdrLen {
		if r, err := fsformat.DecodeData(b[at:], end+at); err == nil && r.Txn != end {
			return 0
		}
	}
	return tid
}

// checkRead is check for who has read an extent.
func (f *dataFile) checkRead() error { return f.check(false) }
