package probe

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"
)

// toyNine is a 9P server with one file, "f". Page p of it begins with the byte value(p).
type toyNine struct {
	port   int
	listen net.Listener

	onRead  func(c readCall) error // called before a Tread is answered; an error is the answer; fixed
	flushed chan struct{}          // gets a value for each Tflush, as long as there is room
	msize   atomic.Uint32          // of the last Tversion, as proposed

	mu      sync.Mutex
	size    int64                         // guarded by mu
	version uint32                        // guarded by mu
	value   func(pg int64) byte           // guarded by mu
	reply   func(off int64, n int) []byte // guarded by mu; whole answer of a Tread, instead of the content
	calls   []readCall                    // guarded by mu
	conns   []net.Conn                    // guarded by mu
}

// start listens on loopback.
func (t *toyNine) start(e *Env) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	t.listen, t.port = l, l.Addr().(*net.TCPAddr).Port
	t.flushed = make(chan struct{}, 64)
	if t.value == nil {
		t.value = func(pg int64) byte { return byte(pg + 1) }
	}
	e.cleanup(t.stop)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.set(func() { t.conns = append(t.conns, c) })
			// a server for each connection: a blocked read holds locks of the whole server
			go func() { _ = p9.NewServer(t).Handle(&tap{c: c, t: t}, c) }()
		}
	}()
	return nil
}

// stop ends all connections. A process that is its own server must do that before it exits: closing files
// would wait for replies.
func (t *toyNine) stop() {
	t.listen.Close()
	t.set(func() {
		for _, c := range t.conns {
			c.Close()
		}
	})
}

// mount mounts the file system in e.Dir/name.
func (t *toyNine) mount(e *Env, name, options string) (string, error) {
	dir := filepath.Join(e.Dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	opts := fmt.Sprintf("trans=tcp,port=%d,version=9p2000.L,access=any,uname=probe,%s", t.port, options)
	if !strings.Contains(opts, "msize=") {
		opts += ",msize=65560"
	}
	if err := unix.Mount("127.0.0.1", dir, "9p", 0, opts); err != nil {
		return "", fmt.Errorf("mount -t 9p -o %s: %w", opts, err)
	}
	return dir, nil
}

// startMount does both and opens the file.
func (t *toyNine) startMount(e *Env, options string, flags int) (*os.File, error) {
	if err := t.start(e); err != nil {
		return nil, err
	}
	dir, err := t.mount(e, "m", options)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "f"), flags, 0)
}

func (t *toyNine) set(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

func (t *toyNine) reads() []readCall {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]readCall(nil), t.calls...)
}

// Attach implements p9.Attacher.
func (t *toyNine) Attach() (p9.File, error) { return &nineNode{t: t, dir: true}, nil }

// tap sees the messages of a connection and tells of each Tflush and Tversion: the library does not.
type tap struct {
	c    net.Conn
	t    *toyNine
	head []byte // of the message under way, as far as it came
	skip int    // what is left of its body
}

const (
	tversion = 100 // size[4] type[1] tag[2] msize[4] ...
	tflush   = 108
)

func (f *tap) Read(p []byte) (int, error) {
	n, err := f.c.Read(p)
	for b := p[:n]; len(b) > 0; {
		if f.skip > 0 {
			k := min(f.skip, len(b))
			f.skip, b = f.skip-k, b[k:]
			continue
		}
		f.head, b = append(f.head, b[0]), b[1:]
		if len(f.head) < 5 || f.head[4] == tversion && len(f.head) < 11 {
			continue
		}
		switch f.head[4] {
		case tflush:
			select {
			case f.t.flushed <- struct{}{}:
			default:
			}
		case tversion:
			f.t.msize.Store(binary.LittleEndian.Uint32(f.head[7:]))
		}
		f.skip = max(0, int(binary.LittleEndian.Uint32(f.head))-len(f.head))
		f.head = f.head[:0]
	}
	return n, err
}

func (f *tap) Close() error { return f.c.Close() }

// nineNode is the root or the file.
type nineNode struct {
	p9.DefaultWalkGetAttr
	templatefs.NoopFile

	t   *toyNine
	dir bool
}

var _ p9.File = (*nineNode)(nil)

func (n *nineNode) qid() p9.QID {
	if n.dir {
		return p9.QID{Type: p9.TypeDir, Path: 1}
	}
	n.t.mu.Lock()
	defer n.t.mu.Unlock()
	return p9.QID{Type: p9.TypeRegular, Version: n.t.version, Path: 2}
}

// Walk implements p9.File.
func (n *nineNode) Walk(names []string) ([]p9.QID, p9.File, error) {
	switch {
	case len(names) == 0:
		return nil, &nineNode{t: n.t, dir: n.dir}, nil
	case len(names) == 1 && n.dir && names[0] == "f":
		f := &nineNode{t: n.t}
		return []p9.QID{f.qid()}, f, nil
	}
	return nil, nil, unix.ENOENT
}

// GetAttr implements p9.File.
func (n *nineNode) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	a := p9.Attr{Mode: p9.ModeDirectory | 0o755, NLink: 1, BlockSize: page}
	if !n.dir {
		a.Mode = p9.ModeRegular | 0o644
		n.t.set(func() { a.Size = uint64(n.t.size) })
	}
	return n.qid(), p9.AttrMask{Mode: true, NLink: true, Size: true, UID: true, GID: true, MTime: true, Blocks: true}, a, nil
}

// SetAttr implements p9.File.
func (n *nineNode) SetAttr(p9.SetAttrMask, p9.SetAttr) error { return nil }

// StatFS implements p9.File.
func (n *nineNode) StatFS() (p9.FSStat, error) {
	return p9.FSStat{BlockSize: page, NameLength: 255}, nil
}

// Open implements p9.File.
func (n *nineNode) Open(p9.OpenFlags) (p9.QID, uint32, error) { return n.qid(), 0, nil }

// Close implements p9.File.
func (n *nineNode) Close() error { return nil }

// ReadAt implements p9.File.
func (n *nineNode) ReadAt(p []byte, off int64) (int, error) {
	t := n.t
	t.mu.Lock()
	c := readCall{off, len(p), len(t.calls)}
	t.calls = append(t.calls, c)
	var b []byte
	if t.reply != nil {
		b = t.reply(off, len(p))
	} else {
		b = make([]byte, min(int64(len(p)), max(0, t.size-off)))
		for i := range b {
			if (off+int64(i))%page == 0 {
				b[i] = t.value((off + int64(i)) / page)
			}
		}
	}
	t.mu.Unlock()
	if t.onRead != nil {
		if err := t.onRead(c); err != nil {
			return 0, err
		}
	}
	k := copy(p, b)
	if k == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return k, nil
}

// WriteAt implements p9.File.
func (n *nineNode) WriteAt(p []byte, _ int64) (int, error) {
	return len(p), nil
}
