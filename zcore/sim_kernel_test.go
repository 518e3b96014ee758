package zcore

import (
	"context"
	"fmt"
	"sync"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

const simPage = 16 // bytes; blocks of the simulation have a few pages

// simKernel is a page cache as the kernel keeps it: a page is locked from the moment its READ is sent
// until the reply is there, and whoever wants to invalidate or store it waits for that.
type simKernel struct {
	core *Core
	db   *zgen.DB

	mu    sync.Mutex
	cond  *sync.Cond
	pages map[simKey]*simPg
	revs  map[revKey]map[int64]string // stored under @rev
	seen  map[zodb.Oid]map[Blk]bool   // blocks read through head
	heads map[zodb.Oid]*HeadFile      // mu; the inode looked up last
	wrong error                       // mu; the first wrong thing
	saved int                         // mu; blocks kept under @rev
	puts  int                         // mu; uploads
	drops int                         // mu; files dropped whole

	repeated int // mu; READs sent again
}

// simKey names a page of an inode, which a look-up made.
type simKey struct {
	ino *HeadFile
	off int64
}

type simPg struct {
	locked bool
	cached bool
	data   string
}

func newSimKernel(core *Core, db *zgen.DB) *simKernel {
	k := &simKernel{core: core, db: db, pages: map[simKey]*simPg{}, revs: map[revKey]map[int64]string{}, seen: map[zodb.Oid]map[Blk]bool{}, heads: map[zodb.Oid]*HeadFile{}}
	k.cond = sync.NewCond(&k.mu)
	return k
}

func (k *simKernel) fail(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wrong == nil {
		k.wrong = fmt.Errorf(format, args...)
	}
}

// waitUnlocked returns the page, not locked. mu must be held.
func (k *simKernel) waitUnlocked(key simKey) *simPg {
	for {
		p := k.pages[key]
		if p == nil {
			p = &simPg{}
			k.pages[key] = p
		}
		if !p.locked {
			return p
		}
		k.cond.Wait()
	}
}

// lookup is a LOOKUP of a name: what it finds becomes the inode that notifications are about.
func (k *simKernel) lookup(ctx context.Context, oid zodb.Oid) (*HeadFile, error) {
	f, err := k.core.Lookup(ctx, oid)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil && f.Failure() == nil {
		k.heads[oid] = f
	}
	return f, err
}

// key names a page of the inode that a file is now. mu must be held.
func (k *simKernel) key(oid zodb.Oid, off int64) simKey { return simKey{k.heads[oid], off} }

// fault reads npages pages at off of a head file, as a fault with read-around does.
func (k *simKernel) fault(ctx context.Context, f *HeadFile, off int64, npages int) (string, error) {
	key := simKey{f, off}
	k.mu.Lock()
	p := k.waitUnlocked(key)
	if p.cached {
		defer k.mu.Unlock()
		return p.data, nil
	}
	var mine []*simPg
	for i := range npages {
		q := k.pages[simKey{f, off + int64(i)*simPage}]
		if q == nil {
			q = &simPg{}
			k.pages[simKey{f, off + int64(i)*simPage}] = q
		}
		if q.locked || q.cached {
			break
		}
		q.locked = true
		mine = append(mine, q)
	}
	if k.heads[f.Oid()] == nil {
		k.heads[f.Oid()] = f
	}
	k.mu.Unlock()
	d, err := f.Read(ctx, k.core.Host(), len(mine)*simPage, off)
	k.mu.Lock()
	text := dataText(d)
	for i, q := range mine {
		q.locked = false
		if err == nil && len(text) >= (i+1)*simPage {
			q.cached, q.data = true, text[i*simPage:(i+1)*simPage]
			if k.seen[f.Oid()] == nil {
				k.seen[f.Oid()] = map[Blk]bool{}
			}
			k.seen[f.Oid()][Blk((off+int64(i)*simPage)/f.h.Blksize)] = true
		}
	}
	data, cached := p.data, p.cached
	k.cond.Broadcast()
	k.mu.Unlock()
	if d.Done != nil {
		d.Done()
	}
	if err == nil && !cached {
		err = fmt.Errorf("read of f<%s> at %d is short", f.Oid(), off)
	}
	return data, err
}

func dataText(d Data) string {
	var b []byte
	for _, p := range d.Pieces {
		b = append(b, pieceBytes(p)...)
	}
	return string(b)
}

// evict drops a page nobody uses.
func (k *simKernel) evict(key simKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pages[key]; p != nil && !p.locked {
		p.cached = false
	}
}

func (k *simKernel) Retrieve(oid zodb.Oid, off int64, p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for n < len(p) {
		q := k.pages[k.key(oid, off+int64(n))]
		if q == nil || q.locked || !q.cached {
			break
		}
		n += copy(p[n:], q.data)
	}
	return n, nil
}

func (k *simKernel) Invalidate(oid zodb.Oid, off, size int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for o := off; o < off+size; o += simPage {
		k.waitUnlocked(k.key(oid, o)).cached = false
	}
	return nil
}

func (k *simKernel) Drop(oid zodb.Oid) error {
	k.mu.Lock()
	var all []simKey
	for key := range k.pages {
		if key.ino == k.heads[oid] {
			all = append(all, key)
		}
	}
	for _, key := range all {
		k.waitUnlocked(key).cached = false
	}
	delete(k.seen, oid)
	k.drops++
	k.mu.Unlock()
	return nil
}

func (k *simKernel) DropName(zodb.Oid) error { return nil }

func (k *simKernel) InvalidateAttr(zodb.Oid) error { return nil }

func (k *simKernel) Upload(oid zodb.Oid, off int64, data []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.puts++
	for o := 0; o < len(data); o += simPage {
		p := k.waitUnlocked(k.key(oid, off+int64(o)))
		p.cached, p.data = true, string(data[o:o+simPage])
	}
	return nil
}

func (k *simKernel) StoreRev(rev zodb.Tid, oid zodb.Oid, off int64, data []byte) error {
	bf, _ := k.db.File(oid, rev)
	blk := Blk(off / bf.Blksize)
	if want := string(k.db.Data(oid, blk, rev)); want != string(data) {
		k.fail("stored under @%s of f<%s>[%d]: %q, want %q", rev, oid, blk, data, want)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.saved++
	return nil
}
