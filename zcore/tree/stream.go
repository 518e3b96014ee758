package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// source is what the core has behind a stream. Read blocks until there is something; no bytes and no
// error is the end.
type source interface {
	Read(ctx context.Context, size int) ([]byte, error)
	Close()
}

// sink is a source that takes requests too: a watch link.
type sink interface {
	Write(ctx context.Context, p []byte) (int, error)
}

// stream is head/watch, head/watch9 or .wcfs/debug/zhead.
type stream struct {
	fileBase
	kind Kind // Stream or Padded
	perm uint32
	open func(who Caller) (source, error)
}

func (fs *FS) newStream(kind Kind, open func(Caller) (source, error), perm uint32) *stream {
	return &stream{fileBase{fs.newNode()}, kind, perm, open}
}

func (fs *FS) openZhead(Caller) (source, error) { return fs.core.OpenZhead(), nil }

func (fs *FS) openLink(who Caller) (source, error) {
	l, err := fs.core.OpenLink(who.Domain, who.Process)
	if err != nil {
		return nil, err // not l: a nil *Link would make a source that is not nil
	}
	return l, nil
}

// openLink9 opens head/watch9. Who comes to it through the FUSE mount is QEMU, for guests of virtfs.
func (fs *FS) openLink9(who Caller) (source, error) {
	if who.Padded {
		return fs.openLink(who)
	}
	l, err := fs.core.OpenBaseLink(who.Domain)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (f *stream) Kind() Kind { return f.kind }

func (f *stream) Attr(context.Context) (Attr, error) {
	return f.smallAttr(0, f.perm, f.fs.core.Head())
}

// Open of a watch file for reading alone gives an empty file: nothing can be asked there, so nothing will ever come.
func (f *stream) Open(_ context.Context, who Caller, write bool) (Handle, error) {
	if err := openCheck(f.fs, write && f.perm&0o222 == 0); err != nil {
		return nil, err
	}
	if !write && f.perm&0o222 != 0 {
		return &textHandle{fs: f.fs, text: func() string { return "" }}, nil // whoever copies or searches the tree comes by
	}
	src, err := f.open(who)
	if err != nil {
		return nil, err
	}
	h := &streamHandle{fs: f.fs, src: src}
	if f.kind == Padded || who.Padded {
		return &paddedHandle{h, who.Padded}, nil
	}
	return h, nil
}

type streamHandle struct {
	fs  *FS
	src source
}

// Read returns what there is, which may be less than size.
func (h *streamHandle) Read(ctx context.Context, size int, _ int64) (Data, error) {
	if err := h.fs.failed(); err != nil {
		return Data{}, err
	}
	p, err := h.src.Read(ctx, size)
	return memData(p), interrupted(ctx, err)
}

func (h *streamHandle) Write(ctx context.Context, p []byte, _ int64) (int, error) {
	if err := h.fs.failed(); err != nil {
		return 0, err
	}
	w, ok := h.src.(sink)
	if !ok {
		return 0, ErrReadOnly
	}
	n, err := w.Write(ctx, p)
	return n, interrupted(ctx, err)
}

func (h *streamHandle) Close() { h.src.Close() }

// paddedHandle is for clients whose kernel asks again after a short reply and does not deliver what it
// has: every reply is as long as was asked for, filled up with '\n'. Clients skip blank lines.
type paddedHandle struct {
	*streamHandle
	blankOnCancel bool // a cancelled read is answered by a blank, as 9P wants it; else by ErrInterrupted
}

// Read waits for messages at most BlankEvery. The end of the stream is 0 bytes.
func (h *paddedHandle) Read(ctx context.Context, size int, _ int64) (Data, error) {
	if err := h.fs.failed(); err != nil {
		return Data{}, err
	}
	if size <= 0 {
		return Data{}, nil
	}
	wait, cancel := context.WithTimeout(ctx, h.fs.opts.BlankEvery)
	defer cancel()
	p, err := h.src.Read(wait, size)
	switch {
	case err == nil && len(p) == 0:
		return Data{}, nil
	case err == nil:
		p = h.restOfLine(ctx, p, size)
	case ctx.Err() != nil && h.blankOnCancel, ctx.Err() == nil && wait.Err() != nil:
		p = nil // nothing was taken from the stream
	default:
		return Data{}, interrupted(ctx, err)
	}
	reply := bytes.Repeat([]byte{'\n'}, size)
	copy(reply, p)
	return memData(reply), nil
}

// restOfLine adds what is missing of the last line, as far as it fits, so that the padding tears none.
// It is there already: this does not wait.
func (h *paddedHandle) restOfLine(ctx context.Context, p []byte, size int) []byte {
	for len(p) < size && p[len(p)-1] != '\n' {
		more, err := h.src.Read(ctx, size-len(p))
		if err != nil || len(more) == 0 {
			break
		}
		p = append(p[:len(p):len(p)], more...)
	}
	return p
}

// interrupted makes one kind of whatever a cancelled wait answers.
func interrupted(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, ErrInterrupted) {
		return err
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return fmt.Errorf("%w: %w", ErrInterrupted, err)
	}
	return err
}

// defaultBlankEvery is often enough that a client waiting for a file position hardly notices, and
// seldom enough to cost nothing.
const defaultBlankEvery = 5 * time.Second
