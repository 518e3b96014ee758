package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func fuseRemap(e *Env) (Verdict, error) {
	g := newGate(5)
	t := &toyFUSE{size: 16 * page, openFlags: fuse.FOPEN_KEEP_CACHE, onRead: g.hold}
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	defer t.unmount()
	defer g.open()
	f, err := t.open()
	if err != nil {
		return Verdict{}, err
	}
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

func fuseStream(e *Env) (Verdict, error) {
	g := newGate(0)
	wrote := make(chan struct{}, 1)
	t := &toyFUSE{size: page, openFlags: fuse.FOPEN_DIRECT_IO | fuse.FOPEN_STREAM, onRead: g.hold,
		onWrite: func([]byte) { wrote <- struct{}{} }}
	if e.Spoil {
		t.openFlags = fuse.FOPEN_DIRECT_IO
	}
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	defer t.unmount()
	defer g.open()
	fd, err := unix.Open(t.path(), unix.O_RDWR, 0)
	if err != nil {
		return Verdict{}, err
	}
	go func() { _, _ = unix.Read(fd, make([]byte, 100)) }()
	if err := await("the READ", g.came); err != nil {
		return Verdict{}, err
	}
	took, ok, err := within(quiet, func() error { _, err := unix.Write(fd, []byte("x")); return err })
	if err != nil {
		return Verdict{}, err
	}
	return answer(ok, "write returned: %v (%v)", ok, took.Round(100*time.Microsecond))
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
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	defer t.unmount()
	defer close(release)
	took, dead, err := killChild(func() error { return await("the child's READ", came) }, "fault", t.path())
	if err != nil {
		return Verdict{}, err
	}
	if !dead {
		return no("not dead %v after SIGKILL", took)
	}
	return yes("dead %v after SIGKILL, INTERRUPTs: %d", took.Round(time.Millisecond), len(interrupted))
}

// killChild starts a child of this program, kills it when ready returns, and waits two seconds for its end.
func killChild(ready func() error, args ...string) (took time.Duration, dead bool, err error) {
	cmd := Command("/proc/self/exe", append([]string{"child"}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, false, err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	if err := ready(); err != nil {
		_ = cmd.Process.Kill()
		return 0, false, err
	}
	time.Sleep(20 * time.Millisecond) // its thread gets to where it waits
	began := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		return 0, false, err
	}
	select {
	case err := <-gone:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Success() || !exit.Sys().(syscall.WaitStatus).Signaled() {
			return 0, false, fmt.Errorf("the child ended by itself: %w", err)
		}
		return time.Since(began), true, nil
	case <-time.After(2 * time.Second):
		return time.Since(began), false, nil
	}
}

// child is a process that a probe kills ("fault FILE" touches page 5 of a file, "read FILE" reads it), or
// one that remapInFault or rereadLocked needs.
func child(args []string) int {
	if len(args) < 2 {
		return 2
	}
	f, err := os.Open(args[1])
	if err == nil {
		switch args[0] {
		case "fault":
			var m mapping
			if m, err = mapFile(f, 16*page); err == nil {
				err = m.random()
				m.touch(5)
			}
		case "read":
			_, err = unix.Pread(int(f.Fd()), make([]byte, page), 0)
		case "remap":
			if err = childRemap(f, args[2], args[3]); err == nil {
				return 0
			}
		case "reread":
			if err = childReread(f, args[2], args[3]); err == nil {
				return 0
			}
		}
	}
	fmt.Fprintln(os.Stderr, "child ends:", err)
	return 3
}

func fuseDeath(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 16 * page, openFlags: fuse.FOPEN_KEEP_CACHE}
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	defer t.unmount()
	fd, err := unix.Open(t.path(), unix.O_RDONLY, 0)
	if err != nil {
		return Verdict{}, err
	}
	b := make([]byte, page)
	if _, err := unix.Pread(fd, b, 0); err != nil {
		return Verdict{}, err
	}
	if !e.Spoil {
		if err := abort(t.dir); err != nil {
			return Verdict{}, err
		}
	}
	var cached, other, closed error
	took, ok, _ := within(soon, func() error {
		_, cached = unix.Pread(fd, b, 0)
		_, other = unix.Pread(fd, b, 12*page)
		closed = unix.Close(fd)
		return nil
	})
	if !ok {
		return no("it hangs")
	}
	good := cached == nil && b[0] == 1 && other != nil && errors.Is(closed, unix.ENOTCONN)
	return answer(good, "cached page: %v, other: %v, close: %v; in %v", errWord(cached), errWord(other), errWord(closed), took.Round(time.Millisecond))
}

func errWord(err error) string {
	if err == nil {
		return "ok"
	}
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// Clean ends and unmounts what a probe left mounted below dir, and removes dir.
func Clean(dir string) {
	endMount(filepath.Join(dir, "m"))
	_ = os.RemoveAll(dir)
}

// endMount aborts the connection of a FUSE mount, if it is one, and unmounts it.
func endMount(dir string) {
	_ = abort(dir)
	_ = unix.Unmount(dir, unix.MNT_DETACH)
}

// abort ends the connection of a FUSE mount, as the death of its server does.
func abort(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, l := range strings.Split(string(b), "\n") {
		f := strings.Fields(l)
		if len(f) < 5 || f[4] != dir {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		return withControl(dir+".ctl", func(ctl string) error {
			return os.WriteFile(filepath.Join(ctl, minor, "abort"), []byte("1"), 0o644)
		})
	}
	return fmt.Errorf("%s is not mounted", dir)
}

// withControl has the control files of FUSE connections for f: where they usually are, or mounted at dir meanwhile.
func withControl(dir string, f func(ctl string) error) error {
	const usual = "/sys/fs/fuse/connections"
	if list, err := os.ReadDir(usual); err == nil && len(list) > 0 {
		return f(usual)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("fusectl", dir, "fusectl", 0, ""); err != nil {
		return fmt.Errorf("mount fusectl: %w", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	return f(dir)
}
