package tree

import (
	"context"
	"sync"

	"wcfs/zcore"
	"wcfs/zcore/zodb"
)

// static is a small file whose content never changes.
type static struct {
	fileBase
	text  string          // immutable
	mtime func() zodb.Tid // immutable
	stale func() bool     // immutable; tells that a look-up would find another file; nil: never
}

func (fs *FS) newStatic(text string, mtime func() zodb.Tid) *static {
	return &static{fileBase: fileBase{fs.newNode()}, text: text, mtime: mtime}
}

func (*static) Kind() Kind { return Static }

func (f *static) Attr(context.Context) (Attr, error) {
	return f.smallAttr(len(f.text), 0o444, f.mtime())
}

func (f *static) Open(_ context.Context, _ Caller, write bool) (Handle, error) {
	if err := openCheck(f.fs, write); err != nil {
		return nil, err
	}
	if f.stale != nil && f.stale() {
		return nil, ErrStale
	}
	return &textHandle{fs: f.fs, text: func() string { return f.text }}, nil
}

// volatile is a small file whose content is made when it is read.
type volatile struct {
	fileBase
	text  func() string   // immutable; never blocks
	mtime func() zodb.Tid // immutable

	always bool // it is served in EIO mode too; immutable once the tree is made
}

func (fs *FS) newVolatile(text func() string, mtime func() zodb.Tid) *volatile {
	return &volatile{fileBase: fileBase{fs.newNode()}, text: text, mtime: mtime}
}

func (*volatile) Kind() Kind { return Volatile }

func (f *volatile) Attr(context.Context) (Attr, error) {
	a, err := f.smallAttr(len(f.text()), 0o444, f.mtime())
	if f.always {
		err = nil
	}
	return a, err
}

func (f *volatile) Open(_ context.Context, _ Caller, write bool) (Handle, error) {
	err := openCheck(f.fs, write)
	if f.always && !write {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return &textHandle{fs: f.fs, text: f.text, always: f.always}, nil
}

// openCheck is what every open of a file that nobody writes begins with.
func openCheck(fs *FS, write bool) error {
	if err := fs.failed(); err != nil {
		return err
	}
	if write {
		return ErrReadOnly
	}
	return nil
}

// textHandle is an open static or volatile file.
type textHandle struct {
	fs   *FS
	text func() string // immutable; never blocks

	always bool // it is served in EIO mode too; immutable

	mu   sync.Mutex
	last string // guard: mu; the text as of the latest read at 0
}

// Read makes the text anew at offset 0, and goes on in that same text at others, so that a reader
// who takes it in pieces gets no mix of two states.
func (h *textHandle) Read(_ context.Context, size int, off int64) (Data, error) {
	if err := h.fs.failed(); err != nil && !h.always {
		return Data{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if off == 0 || h.last == "" {
		h.last = h.text()
	}
	if off < 0 || off >= int64(len(h.last)) {
		return Data{}, nil
	}
	part := h.last[off:]
	return memData([]byte(part[:min(len(part), size)])), nil
}

func (*textHandle) Write(context.Context, []byte, int64) (int, error) { return 0, ErrReadOnly }
func (*textHandle) Close()                                            {}

func memData(p []byte) Data {
	if len(p) == 0 {
		return Data{}
	}
	return Data{Pieces: []zcore.Piece{{Mem: p}}}
}
