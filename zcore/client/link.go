package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"wcfs/zcore/watchproto"
)

// link is one open of head/watch or head/watch9. One goroutine reads it, has pins done and acknowledges
// them.
type link struct {
	f      *os.File
	padded bool                       // head/watch9: replies are filled up with blank lines
	onPin  func(watchproto.Pin) error // the pin is to be shown when it returns
	told   func(watchproto.Pin)       // after the acknowledgement; may be nil
	onEnd  func(error)                // called once, when no more pins come
	ended  chan struct{}              // closed after onEnd

	mu     sync.Mutex
	stream uint64      // mu; of the last request; odd, -1 before the first
	reply  chan string // mu; cap 1, for the request under way; nil: there is none
}

// linkBuf is what v9fs and virtfs can take: one page, at a page's boundary.
const linkBuf = 4096

var errLinkEnded = errors.New("the server ended the watch link")

func openLink(c *Conn, onPin func(watchproto.Pin) error, told func(watchproto.Pin), onEnd func(error)) (*link, error) {
	name := "head/watch"
	if c.base {
		name = "head/watch9"
	}
	f, err := os.OpenFile(filepath.Join(c.dir, name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	l := &link{f: f, stream: ^uint64(0), padded: c.base, onPin: onPin, told: told, onEnd: onEnd, ended: make(chan struct{})}
	go l.run()
	return l, nil
}

// run is the goroutine that answers pins. It must not wait for anything but the server's next line.
func (l *link) run() {
	err := l.readLines()
	l.onEnd(err)
	if !errors.Is(err, errLinkEnded) {
		l.bye() // or the server would wait for us
	}
	close(l.ended)
}

func (l *link) readLines() error {
	buf := alignedPage()
	var part []byte
	for {
		n, err := l.read(buf)
		if n <= 0 {
			if err == nil || errors.Is(err, io.EOF) {
				return errLinkEnded
			}
			return fmt.Errorf("watch link: %w", err)
		}
		part = append(part, buf[:n]...)
		for {
			line, rest, ok := bytes.Cut(part, []byte("\n"))
			if !ok {
				break
			}
			part = rest
			if len(line) == 0 {
				continue
			}
			if err := l.line(string(line)); err != nil {
				return err
			}
		}
		if len(part) > watchproto.MaxLine {
			return fmt.Errorf("watch link: line of more than %d bytes", watchproto.MaxLine)
		}
	}
}

// alignedPage returns linkBuf bytes that begin at a page.
func alignedPage() []byte {
	b := make([]byte, 2*linkBuf)
	skip := -uintptr(unsafe.Pointer(&b[0])) & (linkBuf - 1)
	return b[skip : skip+linkBuf : skip+linkBuf]
}

// read is pread behind v9fs: there read(2) would keep write(2) from the file.
func (l *link) read(p []byte) (int, error) {
	if !l.padded {
		return l.f.Read(p)
	}
	for {
		n, err := unix.Pread(int(l.f.Fd()), p, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (l *link) write(stream uint64, msg string) error {
	var err error
	if line := []byte(watchproto.Line(stream, msg)); l.padded {
		_, err = l.f.WriteAt(line, 0)
	} else {
		_, err = l.f.Write(line)
	}
	if err != nil {
		return fmt.Errorf("watch link: %w", err)
	}
	return nil
}

// line does one line of the server's.
func (l *link) line(line string) error {
	stream, msg, err := watchproto.Frame(line)
	switch {
	case err != nil:
		return fmt.Errorf("watch link: %w", err)
	case stream == 0:
		return fmt.Errorf("the server ended the view: %s", msg)
	case stream%2 == 1:
		l.mu.Lock()
		defer l.mu.Unlock()
		if stream == l.stream && l.reply != nil {
			l.reply <- msg
			l.reply = nil
		}
		return nil
	}
	pin, err := watchproto.ParsePin(msg)
	if err != nil {
		return fmt.Errorf("watch link: %w", err)
	}
	if err := l.onPin(pin); err != nil {
		return err
	}
	if err := l.write(stream, "ack"); err != nil {
		return err
	}
	if l.told != nil {
		l.told(pin)
	}
	return nil
}

// nextStream returns the stream of the next request, whose reply goes to reply.
func (l *link) nextStream(reply chan string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stream += 2
	l.reply = reply
	return l.stream
}

// bye has the server cancel what is under way and close its side. If it cannot be sent the server is
// gone, and reading has ended or will.
func (l *link) bye() { _ = l.write(l.nextStream(nil), "bye") }

// ask sends a request and waits for "ok". One at a time.
func (l *link) ask(ctx context.Context, msg string) error {
	reply := make(chan string, 1)
	if err := l.write(l.nextStream(reply), msg); err != nil {
		return err
	}
	select {
	case text := <-reply:
		return replyError(text)
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ended:
	}
	select { // the reply may have come just before the end
	case text := <-reply:
		return replyError(text)
	default:
		return errLinkEnded
	}
}

// refusal is what the server answers instead of ok. The link goes on.
type refusal string

func (r refusal) Error() string { return string(r) }

func replyError(text string) error {
	if text == "ok" {
		return nil
	}
	return refusal(strings.TrimPrefix(text, "error "))
}

// close says goodbye, so that pins under way are cancelled and the server does not take the end for a
// fault, and returns when nothing of the link is left.
func (l *link) close() {
	l.bye()
	<-l.ended
	l.f.Close() // ENOTCONN after the server's death: nothing is lost by it
}
