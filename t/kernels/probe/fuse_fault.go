package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func fuseRemap(e *Env) (Verdict, error) {
	g := newGate(5)
	t := &toyFUSE{size: 16 * page, openFlags: fuse.FOPEN_KEEP_CACHE, onRead: g.hold}
	f, err := t.start(e)
	if err != nil {
		return Verdict{}, err
	}
	e.cleanup(g.open)
	return remapInFault(e, f, g)
}

// remapInFault has a child fault page 5 of f, whose read g holds, and map another file over it
// meanwhile. Spoiled: the fault is one by the kernel's remote access, which keeps mmap_lock.
func remapInFault(e *Env, f *os.File, g *gate) (Verdict, error) {
	other, err := plainFile(e.Dir, 16*page, 55)
	if err != nil {
		return Verdict{}, err
	}
	how := "touch"
	if e.Spoil {
		how = "mem"
	}
	cmd := Command("/proc/self/exe", "child", "remap", f.Name(), other.Name(), how)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return Verdict{}, err
	}
	defer func() { _ = cmd.Wait() }()
	defer g.open()
	if err := await("the read of a fault", g.came); err != nil {
		return Verdict{}, err
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		return Verdict{}, err
	}
	answered := make(chan int, 1)
	go func() {
		third := -1
		_, _ = fmt.Fscan(out, &third)
		answered <- third
	}()
	began := time.Now()
	select {
	case third := <-answered:
		return answer(third == 55, "mapped within %v; another thread then reads %d, the new file holds 55", time.Since(began).Round(10*time.Microsecond), third)
	case <-time.After(2 * time.Second):
	}
	g.open()
	third := <-answered
	return no("mmap does not return while the read is held; after it another thread reads %d", third)
}

// childRemap is the child: it faults, waits for a line, maps, reads, and says what it read.
func childRemap(f *os.File, other, how string) error {
	m, err := mapFile(f, 16*page)
	if err != nil {
		return err
	}
	if err := m.random(); err != nil {
		return err
	}
	o, err := os.Open(other)
	if err != nil {
		return err
	}
	addr := m.addr + 5*page
	if how == "mem" {
		mem, err := os.Open("/proc/self/mem")
		if err != nil {
			return err
		}
		go func() { _, _ = mem.ReadAt(make([]byte, 1), int64(addr)) }()
	} else {
		m.touchAsync(5)
	}
	if _, err := os.Stdin.Read(make([]byte, 10)); err != nil {
		return err
	}
	if _, err := mapAt(addr, o, page, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return err
	}
	fmt.Println(m.touch(5))
	return nil
}

// fuseStream has a write wait for nothing while a read of its descriptor is held, and then the reverse.
func fuseStream(e *Env) (Verdict, error) {
	reads, writes := newGate(0), newGate(0)
	t := &toyFUSE{size: page, openFlags: fuse.FOPEN_DIRECT_IO | fuse.FOPEN_STREAM, onRead: reads.hold}
	var holdWrites atomic.Bool
	t.onWrite = func() {
		if holdWrites.Load() {
			writes.wait(readCall{size: page})
		}
	}
	if e.Spoil {
		t.openFlags = fuse.FOPEN_DIRECT_IO
	}
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	f, err := t.open(unix.O_RDWR)
	if err != nil {
		return Verdict{}, err
	}
	fd := int(f.Fd())
	read := func() error { _, err := unix.Read(fd, make([]byte, 100)); return err }
	write := func() error { _, err := unix.Write(fd, []byte("x")); return err }
	e.cleanup(reads.open)
	e.cleanup(writes.open)

	readEnds := async(read)
	if err := await("the READ", reads.came); err != nil {
		return Verdict{}, err
	}
	writeEnds := async(write)
	wrote := given(writeEnds, time.Second)
	reads.open()
	if err := errors.Join(await("the read's end", readEnds), await("the write's end", writeEnds)); err != nil {
		return Verdict{}, err
	}
	holdWrites.Store(true)
	async(write)
	if err := await("the WRITE", writes.came); err != nil {
		return Verdict{}, err
	}
	got := given(async(read), time.Second)
	return answer(wrote && got, "the write returned: %v, the read returned: %v", wrote, got)
}

func fuseInterrupt(e *Env) (Verdict, error) {
	came := make(chan struct{}, 16)
	release := make(chan struct{})
	interrupted := make(chan struct{}, 16)
	t := &toyFUSE{size: 16 * page, openFlags: fuse.FOPEN_KEEP_CACHE}
	t.onRead = func(ctx context.Context, c readCall) {
		if !c.has(5) {
			return
		}
		came <- struct{}{}
		select {
		case <-ctx.Done():
			interrupted <- struct{}{}
			if e.Spoil { // who does not listen
				<-release
			}
		case <-release:
		}
	}
	if _, err := t.start(e); err != nil {
		return Verdict{}, err
	}
	e.cleanup(func() { close(release) })
	took, dead, err := killChild(func() error { return await("the child's READ", came) }, "fault", t.path())
	if err != nil {
		return Verdict{}, err
	}
	if !dead {
		return no("not dead %v after SIGKILL", took)
	}
	return answer(true, "dead %v after SIGKILL, INTERRUPTs: %d", took.Round(time.Millisecond), len(interrupted))
}

func fuseDeath(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 16 * page, openFlags: fuse.FOPEN_KEEP_CACHE}
	f, err := t.start(e)
	if err != nil {
		return Verdict{}, err
	}
	b := make([]byte, page)
	if _, err := f.ReadAt(b, 0); err != nil {
		return Verdict{}, err
	}
	if !e.Spoil {
		if err := abort(t.dir); err != nil {
			return Verdict{}, err
		}
	}
	var cached, other, closed error
	took, ok, _ := within(soon, func() error {
		_, cached = f.ReadAt(b, 0)
		_, other = f.ReadAt(b, 12*page)
		closed = f.Close()
		return nil
	})
	if !ok {
		return no("it hangs")
	}
	good := cached == nil && b[0] == 1 && other != nil && errors.Is(closed, unix.ENOTCONN)
	return answer(good, "cached page: %v, other: %v, close: %v; in %v", errWord(cached), errWord(other), errWord(closed), took.Round(time.Millisecond))
}
