package probe

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func fuseRuns() map[string]run {
	return map[string]run{
		"fuse-explicit-inval": explicitInval, "fuse-async-read": asyncRead,
		"fuse-store-waits": storeWaits, "fuse-store-resident": storeResident, "fuse-retrieve-unread": retrieveUnread, "fuse-inval-waits": invalWaits,
		"fuse-past-end": pastEnd, "fuse-grown-mapping": grownMapping, "fuse-zero-pages": zeroPages, "fuse-read-size": readSize,
		"fuse-remap-in-fault": fuseRemap, "fuse-reread-locked": rereadLocked, "fuse-stream": fuseStream,
		"fuse-interrupt": fuseInterrupt, "fuse-death": fuseDeath,
	}
}

// readPages reads n pages from the start by pread and compares them with what value says.
func readPages(f *os.File, n int, value func(int64) byte) error {
	b := make([]byte, n*page)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	for p := range n {
		if b[p*page] != value(int64(p)) {
			return fmt.Errorf("page %d holds %d, want %d", p, b[p*page], value(int64(p)))
		}
	}
	return nil
}

func explicitInval(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 8 * page, openFlags: fuse.FOPEN_KEEP_CACHE}
	if err := t.mount(e, func(o *fuse.MountOptions) { o.ExplicitDataCacheControl = !e.Spoil }); err != nil {
		return Verdict{}, err
	}
	f, err := t.open(unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	if err := readPages(f, 8, t.value); err != nil {
		return Verdict{}, err
	}
	before := len(t.reads())
	if err := t.grow(32 * page); err != nil {
		return Verdict{}, err
	}
	if err := readPages(f, 8, t.value); err != nil {
		return Verdict{}, err
	}
	again := 0
	for _, c := range t.reads()[before:] {
		if c.off < 8*page {
			again++
		}
	}
	return answer(again == 0, "%d READs of cached pages after growth", again)
}

// asyncRead has one read-ahead take two READs, and holds the first.
func asyncRead(e *Env) (Verdict, error) {
	g := newGate(0)
	next := make(chan struct{}, 64)
	t := &toyFUSE{size: 32 * page, openFlags: fuse.FOPEN_KEEP_CACHE, onRead: func(_ context.Context, c readCall) {
		if !c.has(0) {
			next <- struct{}{}
		}
		g.wait(c)
	}}
	err := t.mount(e, func(o *fuse.MountOptions) {
		o.MaxWrite = 16 * page
		if e.Spoil {
			o.DisabledCapabilities = fuse.CAP_ASYNC_READ
		}
	})
	if err != nil {
		return Verdict{}, err
	}
	f, err := t.open(unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	read := make(chan error, 1)
	go func() { read <- readPages(f, 32, t.value) }()
	if err := await("the first READ", g.came); err != nil {
		return Verdict{}, err
	}
	came := false
	select {
	case <-next:
		came = true
	case <-time.After(2 * time.Second):
	}
	g.open()
	if err := <-read; err != nil {
		return Verdict{}, err
	}
	return answer(came && len(t.reads()) == 2, "the second came before the first was answered: %v; %d READs", came, len(t.reads()))
}

// held is a mapping of 16 pages of which one is under a held READ by a fault.
type held struct {
	t   *toyFUSE
	f   *os.File
	m   mapping
	g   *gate
	got <-chan byte // what the fault reads
	pg  int
}

// holdPage mounts a toy and starts a fault of page pg that stays until h.g is opened.
func holdPage(e *Env, pg int) (*held, error) {
	h := &held{pg: pg, g: newGate(int64(pg))}
	h.t = &toyFUSE{size: 16 * page, openFlags: fuse.FOPEN_KEEP_CACHE, onRead: h.g.hold}
	var err error
	if h.f, err = h.t.start(e); err != nil {
		return nil, err
	}
	e.cleanup(h.g.open)
	if h.m, err = mapFile(h.f, 16*page); err != nil {
		return nil, err
	}
	if err := h.m.random(); err != nil {
		return nil, err
	}
	for p := range pg {
		if got := h.m.touch(p); got != h.t.value(int64(p)) {
			return nil, fmt.Errorf("page %d reads %d", p, got)
		}
	}
	h.got = h.m.touchAsync(pg)
	return h, await("the READ of a fault", h.g.came)
}

func storeWaits(e *Env) (Verdict, error) {
	h, err := holdPage(e, 5)
	if err != nil {
		return Verdict{}, err
	}
	target := int64(h.pg)
	if e.Spoil {
		target = 9
	}
	stored := make(chan error, 1)
	go func() {
		b := make([]byte, page)
		b[0] = 99
		if errno := h.t.file.WriteCache(target*page, b); errno != 0 {
			stored <- errno
			return
		}
		stored <- nil
	}()
	early := false
	select {
	case <-stored:
		early = true
	case <-time.After(quiet):
		h.g.open()
		if err := <-stored; err != nil {
			return Verdict{}, err
		}
	}
	h.g.open()
	if err := await("the fault", h.got); err != nil {
		return Verdict{}, err
	}
	now := h.m.touch(h.pg)
	return answer(!early && now == 99, "returned before the reply: %v; the page then holds %d, 99 was stored", early, now)
}

func storeResident(e *Env) (Verdict, error) {
	const blk = 2 << 20
	t := &toyFUSE{size: 3 * blk, openFlags: fuse.FOPEN_KEEP_CACHE, value: func(int64) byte { return 7 }}
	f, err := t.start(e)
	if err != nil {
		return Verdict{}, err
	}
	m, err := mapFile(f, 3*blk)
	if err != nil {
		return Verdict{}, err
	}
	size := blk
	if e.Spoil {
		size /= 2
	}
	if errno := t.file.WriteCache(blk, t.content(blk, size)); errno != 0 {
		return Verdict{}, errno
	}
	in, err := m.resident()
	if err != nil {
		return Verdict{}, err
	}
	inside, outside := 0, 0
	for i, r := range in {
		switch {
		case r && i >= blk/page && i < 2*blk/page:
			inside++
		case r:
			outside++
		}
	}
	for p := blk / page; p < 2*blk/page; p++ {
		if m.touch(p) != 7 {
			return no("page %d does not hold what was stored", p)
		}
	}
	n := len(t.reads())
	return answer(inside == blk/page && outside == 0 && n == 0, "%d of %d pages resident, %d outside, %d READs", inside, blk/page, outside, n)
}

func retrieveUnread(e *Env) (Verdict, error) {
	h, err := holdPage(e, 5)
	if err != nil {
		return Verdict{}, err
	}
	first := int64(h.pg)
	if e.Spoil {
		first-- // a page that was read
	}
	b := make([]byte, 10*page)
	var one, all int
	took, ok, err := within(soon, func() error {
		n1, errno1 := h.t.file.ReadCache(first*page, b[:page])
		n2, errno2 := h.t.file.ReadCache(0, b)
		if one, all = n1, n2; errno1 != 0 || errno2 != 0 {
			return fmt.Errorf("retrieve: %v, %v", errno1, errno2)
		}
		return nil
	})
	if err != nil {
		return Verdict{}, err
	}
	if !ok {
		return no("it waits for the READ")
	}
	for p := range all / page {
		if b[p*page] != h.t.value(int64(p)) {
			return no("page %d, which was read, is retrieved as %d", p, b[p*page])
		}
	}
	return answer(one == 0 && all <= h.pg*page, "%d bytes of the page, %d pages before it, in %v", one, all/page, took.Round(time.Millisecond))
}

func invalWaits(e *Env) (Verdict, error) {
	h, err := holdPage(e, 5)
	if err != nil {
		return Verdict{}, err
	}
	off := int64(h.pg) * page
	if e.Spoil {
		off = 8 * page
	}
	invalidated := make(chan error, 1)
	go func() {
		if errno := h.t.file.NotifyContent(off, page); errno != 0 {
			invalidated <- errno
		}
		close(invalidated)
	}()
	early := false
	select {
	case err := <-invalidated:
		if err != nil {
			return Verdict{}, err
		}
		early = true
	case <-time.After(quiet):
	}
	h.t.set(func() { h.t.value = func(int64) byte { return 77 } })
	h.g.open()
	if err := <-invalidated; err != nil {
		return Verdict{}, err
	}
	if err := await("the fault", h.got); err != nil {
		return Verdict{}, err
	}
	now := h.m.touch(h.pg)
	return answer(!early && now == 77, "returned before the reply: %v; the page then reads %d, new content is 77", early, now)
}
