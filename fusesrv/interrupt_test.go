package fusesrv

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/wait"
	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
)

const (
	fileOne = "head/bigfile/0000000000000001"
	fileTwo = "head/bigfile/0000000000000002"
)

// atOnce is what may take what needs nobody's help, on a machine under load. What would hold it up would do so for ever.
var atOnce = wait.Patience

// blocker is a hook that waits for its context, or until it is let go.
type blocker struct {
	entered chan struct{} // one for each that came
	letGo   chan struct{}
	result  chan error // how they ended
}

func newBlocker() *blocker {
	return &blocker{make(chan struct{}, 100), make(chan struct{}), make(chan error, 100)}
}

func (b *blocker) wait(ctx context.Context) (err error) {
	b.entered <- struct{}{}
	select {
	case <-b.letGo:
	case <-ctx.Done():
		err = ctx.Err()
	}
	b.result <- err
	return err
}

func (b *blocker) reads(f *fixture) {
	f.tree.set(func() {
		f.tree.onRead = func(ctx context.Context, _ zodb.Oid, _ int64, _ int) error { return b.wait(ctx) }
	})
}

func TestSignalInStreamRead(t *testing.T) {
	f := mountFake(t, nil)
	c := start(t, "read", f.path("head/watch"))
	c.expect("open")
	until(t, "the read has come", func() bool { return f.srv.fs.gate.inFlight.Load() > 0 })
	c.signal(syscall.SIGUSR1)
	c.expect("error interrupted system call")
}

func TestKillInStreamRead(t *testing.T) {
	f := mountFake(t, nil)
	c := start(t, "read", f.path("head/watch"))
	c.expect("open")
	until(t, "the read has come", func() bool { return f.srv.fs.gate.inFlight.Load() > 0 })
	c.signal(syscall.SIGKILL)
	if err := c.diesWithin(atOnce); !killed(err, syscall.SIGKILL) {
		t.Errorf("ended by %v", err)
	}
	until(t, "the stream is closed", func() bool { return f.tree.opened.Load() == 0 })
}

// A page fault must not see a signal, however many come, but a fatal one at once: also after others,
// since the kernel tells of the first only.
func TestSignalsInPageFault(t *testing.T) {
	f := mountFake(t, nil)
	b := newBlocker()
	b.reads(f)
	c := start(t, "fault", f.path(fileOne))
	c.expect("mapped")
	c.say("touch")
	<-b.entered
	c.signal(syscall.SIGUSR1)
	select {
	case err := <-b.result:
		t.Fatalf("READ ended by %v", err)
	case <-time.After(5 * killPoll):
	}
	close(b.letGo)
	c.expect("byte 17")
	if n := f.tree.reads.Load(); n != 1 {
		t.Errorf("%d READs, want 1", n)
	}
}

func TestKillInPageFault(t *testing.T) {
	for _, first := range []syscall.Signal{0, syscall.SIGUSR1} {
		f := mountFake(t, nil)
		b := newBlocker()
		b.reads(f)
		c := start(t, "fault", f.path(fileOne))
		c.expect("mapped")
		c.say("touch")
		<-b.entered
		if first != 0 {
			c.signal(first)
			time.Sleep(4 * killPoll) // so that it is seen first; were it not, the test would be easier
		}
		c.signal(syscall.SIGKILL)
		if err := c.diesWithin(atOnce); !killed(err, syscall.SIGKILL) {
			t.Errorf("ended by %v", err)
		}
		if err := <-b.result; err == nil || !strings.Contains(err.Error(), tree.ErrInterrupted.Error()) {
			t.Errorf("the READ ended by %v", err)
		}
	}
}

func TestKillInOpen(t *testing.T) {
	f := mountFake(t, nil)
	b := newBlocker()
	f.tree.set(func() { f.tree.onOpen = func(ctx context.Context, _ tree.Kind) error { return b.wait(ctx) } })
	for what, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "interrupted": syscall.SIGUSR1} {
		c := start(t, "open", f.path(fileOne))
		<-b.entered
		c.signal(sig)
		if sig == syscall.SIGUSR1 {
			c.expect("error interrupted system call")
		} else if err := c.diesWithin(atOnce); !killed(err, sig) {
			t.Errorf("%s: ended by %v", what, err)
		}
		<-b.result
	}
}

func TestKillInLookup(t *testing.T) {
	f := mountFake(t, nil)
	b := newBlocker()
	f.tree.set(func() {
		f.tree.onLookup = func(ctx context.Context, name string) error {
			if name != "0000000000000002" {
				return nil
			}
			return b.wait(ctx)
		}
	})
	c := start(t, "stat", f.path(fileTwo))
	<-b.entered
	c.signal(syscall.SIGKILL)
	if err := c.diesWithin(atOnce); !killed(err, syscall.SIGKILL) {
		t.Errorf("ended by %v", err)
	}
	<-b.result
}

// One descriptor, a read waiting in it: a write must get through, and brings the answer.
func TestStreamReadWhileWrite(t *testing.T) {
	f := mountFake(t, nil)
	fd, err := unix.Open(f.path("head/watch"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	got := make(chan string)
	go func() {
		buf := make([]byte, 100)
		n, err := unix.Read(fd, buf)
		if err != nil {
			got <- err.Error()
		} else {
			got <- string(buf[:n])
		}
	}()
	until(t, "the read waits", func() bool { return f.srv.fs.gate.inFlight.Load() > 0 })
	go unix.Write(fd, []byte("1 bye\n"))
	select {
	case g := <-got:
		if g != "1 BYE\n" {
			t.Errorf("read %q", g)
		}
	case <-time.After(wait.Patience):
		t.Fatal("a write waits for a read")
	}
}

func TestWatchProcess(t *testing.T) {
	f := mountFake(t, nil)
	c := start(t, "hold", f.path("head/watch"))
	c.expect("open")
	p := f.tree.lastLink().proc
	if p == nil || p.Pid() != c.cmd.Process.Pid || !p.Alive() {
		t.Fatalf("process of the link: %+v", p)
	}
	if err := p.Wait(deadline(t, 10*time.Millisecond)); err == nil {
		t.Error("Wait returned while it runs")
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := p.Wait(deadline(t, wait.Patience)); err != nil {
		t.Error(err)
	}
	until(t, "it is not alive, zombie or not", func() bool { return !p.Alive() })
	c.diesWithin(atOnce)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Errorf("signal to a process that is gone: %v", err)
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
