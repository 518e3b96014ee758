package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func fuseProbes() []Probe {
	return []Probe{
		{Name: "fuse-explicit-inval", Says: "with FUSE_EXPLICIT_INVAL_DATA cached pages survive that the file grows and gets another mtime",
			Why: "head files grow by appends; the cache that all clients share must not be dropped each time", Run: explicitInval},
		{Name: "fuse-store-waits", Says: "NOTIFY_STORE into a page under READ waits for the READ's reply, and what is stored wins",
			Why: "whole blocks are put into the page cache after a partial read; nothing older may come over them", Run: storeWaits},
		{Name: "fuse-store-resident", Says: "after NOTIFY_STORE of 2 MiB all its pages are resident and are read without a READ",
			Why: "one READ brings a whole block; existing clients look at mincore", Run: storeResident},
		{Name: "fuse-retrieve-unread", Says: "NOTIFY_RETRIEVE gives no byte of a page under READ and does not wait for it",
			Why: "old content is taken from the page cache at a commit, which must not hang on a reader", Run: retrieveUnread},
		{Name: "fuse-inval-waits", Says: "invalidation of a page under READ waits for the reply and then drops the page",
			Why: "a commit is announced only when nobody can get old content any more", Run: invalWaits},
		{Name: "fuse-zero-pages", Relax: true, Says: "a short reply inside the size makes pages of zeros without a READ",
			Why: "the server never answers short inside the size: it would be silent corruption", Run: zeroPages},
		{Name: "fuse-read-size", Relax: true, Says: "READs grow to the device's read_ahead_kb (1 MiB)",
			Why: "speed of sequential reads; `wcfs serve --read-ahead-kb`", Run: readSize},
		{Name: "fuse-remap-in-fault", Says: "while the first READ of a page fault is held, another thread maps something else over the page",
			Why: "that is how clients acknowledge a pin; otherwise each pin of a page being read is a deadlock", Run: fuseRemap},
		{Name: "fuse-reread-locked", Relax: true, Says: "a page invalidated between reply and retry of its fault is read again under mmap_lock",
			Why: "such a second READ must need no pin of that process: hence the grace before invalidation", Run: rereadLocked},
		{Name: "fuse-stream", Says: "with FOPEN_STREAM a write passes while a read of the same descriptor is blocked",
			Why: "clients read and write head/watch through one descriptor from two threads", Run: fuseStream},
		{Name: "fuse-interrupt", Says: "a process killed in a page fault is gone as soon as the server ends its READ on INTERRUPT",
			Why: "a client that does not acknowledge is killed, and must not stay", Run: fuseInterrupt},
		{Name: "fuse-death", Says: "after the server's death cached pages stay, other reads fail, and close(2) ends with ENOTCONN",
			Why: "clients of a server that was killed get errors, not hangs", Run: fuseDeath},
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
	defer t.unmount()
	f, err := t.open()
	if err != nil {
		return Verdict{}, err
	}
	if err := readPages(f, 8, t.value); err != nil {
		return Verdict{}, err
	}
	before := len(t.reads())
	t.set(func() { t.size, t.mtime = 32*page, t.mtime.Add(time.Hour) })
	if st, err := f.Stat(); err != nil || st.Size() != 32*page {
		return Verdict{}, fmt.Errorf("stat after growth: %v, %w", st, err)
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
	if err := h.t.mount(e, nil); err != nil {
		return nil, err
	}
	var err error
	if h.f, err = h.t.open(); err != nil {
		return nil, err
	}
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

func (h *held) end() {
	h.g.open()
	h.t.unmount()
}

func storeWaits(e *Env) (Verdict, error) {
	h, err := holdPage(e, 5)
	if err != nil {
		return Verdict{}, err
	}
	defer h.end()
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
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	defer t.unmount()
	f, err := t.open()
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
	defer h.end()
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
	defer h.end()
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

func zeroPages(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 16 * page, openFlags: fuse.FOPEN_KEEP_CACHE, short: page}
	if e.Spoil {
		t.short = 0
	}
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	defer t.unmount()
	f, err := t.open()
	if err != nil {
		return Verdict{}, err
	}
	b := make([]byte, 8*page)
	if _, err := f.ReadAt(b, 0); err != nil && e.Spoil {
		return Verdict{}, err
	}
	t.set(func() { t.short = 0 })
	if _, err := f.Stat(); err != nil { // brings the size back
		return Verdict{}, err
	}
	before := len(t.reads())
	m, err := mapFile(f, 8*page)
	if err != nil {
		return Verdict{}, err
	}
	zeros := 0
	for p := range 8 {
		if m.touch(p) == 0 {
			zeros++
		}
	}
	return answer(zeros > 0, "%d of 8 pages are zeros, %d READs when touched", zeros, len(t.reads())-before)
}

func readSize(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 16 << 20, openFlags: fuse.FOPEN_KEEP_CACHE}
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	defer t.unmount()
	var st unix.Stat_t
	if err := unix.Stat(t.dir, &st); err != nil {
		return Verdict{}, err
	}
	if !e.Spoil {
		bdi := filepath.Join("/sys/class/bdi", fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), "read_ahead_kb")
		if err := os.WriteFile(bdi, []byte("1024"), 0o644); err != nil {
			return Verdict{}, err
		}
	}
	f, err := t.open()
	if err != nil {
		return Verdict{}, err
	}
	if err := readPages(f, 16<<20/page, t.value); err != nil {
		return Verdict{}, err
	}
	most := 0
	for _, c := range t.reads() {
		most = max(most, c.size)
	}
	return answer(most == 1<<20, "largest READ: %d KiB", most>>10)
}
