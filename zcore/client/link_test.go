package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"wcfs/t/wait"
	"wcfs/zcore/watchproto"
)

// peer is the server's side of a link.
type peer struct {
	t     *testing.T
	f     *os.File
	lines *bufio.Reader
	link  *link
	pins  chan string
	end   chan error
}

func newPeer(t *testing.T, onPin func(watchproto.Pin) error) *peer {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, f: os.NewFile(uintptr(fds[1]), "server"), pins: make(chan string, 10), end: make(chan error, 1)}
	p.lines = bufio.NewReader(p.f)
	p.link = &link{
		f: os.NewFile(uintptr(fds[0]), "client"), stream: ^uint64(0), onPin: onPin, ended: make(chan struct{}),
		told: func(pin watchproto.Pin) { p.pins <- pin.String() }, onEnd: func(err error) { p.end <- err },
	}
	go p.link.run()
	t.Cleanup(func() {
		p.f.Close()
		<-p.link.ended
		p.link.f.Close()
	})
	return p
}

func (p *peer) say(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.f, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) hears(want string) {
	p.t.Helper()
	p.f.SetReadDeadline(time.Now().Add(wait.Patience))
	if got, err := p.lines.ReadString('\n'); got != want+"\n" {
		p.t.Fatalf("the client said %q (%v), want %q", got, err, want)
	}
}

const pinText = "pin 0000000000000005 #7 @0123456789abcdef"

func TestLinkPins(t *testing.T) {
	p := newPeer(t, func(watchproto.Pin) error { return nil })
	p.say("\n\n2 " + pinText + "\n4 pin 0000000000") // blank lines, and a line in pieces
	p.hears("2 ack")
	p.say("000005 #8 @head\n")
	p.hears("4 ack")
	if got := <-p.pins; got != pinText {
		t.Errorf("told of %q", got)
	}
	got := make(chan error, 1)
	go func() { got <- p.link.ask(context.Background(), "watch it") }()
	p.hears("1 watch it")
	p.say("3 ok\n") // nobody's
	p.say("1 error no\n")
	if err := <-got; !errors.As(err, new(refusal)) || err.Error() != "no" {
		t.Errorf("ask: %v", err)
	}
	go func() { got <- p.link.ask(context.Background(), "again") }()
	p.hears("3 again")
	p.say("3 ok\n")
	if err := <-got; err != nil {
		t.Errorf("ask: %v", err)
	}
	go p.link.close()
	p.hears("5 bye")
	p.f.Close()
	if err := <-p.end; !errors.Is(err, errLinkEnded) {
		t.Errorf("ended by %v", err)
	}
}

// A client that cannot go on says so: the server must not wait for it, and kill it.
func TestLinkGivesUp(t *testing.T) {
	for name, text := range map[string]string{
		"no frame": "bla bla\n", "no pin": "2 pin it\n", "fatal": "0 fatal: pin #7 @head: no reply\n",
		"cannot pin": "2 " + pinText + "\n", "endless": strings.Repeat("x", 2*watchproto.MaxLine),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, func(watchproto.Pin) error { return errors.New("cannot") })
			p.say(text)
			if err := <-p.end; err == nil || errors.Is(err, errLinkEnded) {
				t.Errorf("ended by %v", err)
			}
			p.hears("1 bye")
		})
	}
}

func TestLinkAskEnds(t *testing.T) {
	p := newPeer(t, func(watchproto.Pin) error { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error, 1)
	go func() { got <- p.link.ask(ctx, "watch it") }()
	p.hears("1 watch it")
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("ask that was cancelled: %v", err)
	}
	go func() { got <- p.link.ask(context.Background(), "again") }()
	p.hears("3 again")
	p.f.Close()
	if err := <-got; !errors.Is(err, errLinkEnded) {
		t.Errorf("ask over a link that ends: %v", err)
	}
}

func TestAlignedPage(t *testing.T) {
	for range 20 {
		if b := alignedPage(); len(b) != linkBuf || addr(b)%linkBuf != 0 {
			t.Fatalf("%d bytes at %x", len(b), addr(b))
		}
	}
}

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
