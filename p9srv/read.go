package p9srv

import (
	"bytes"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// freeStream is the largest read of a stream that needs no budget: what proper clients ask for. Such a
// read must not wait for reads that wait for the pin it would deliver.
const freeStream = 16 << 10

// read answers Tread; the data goes from the tree to the socket without a copy.
func (r *request) read() error {
	var err error
	switch {
	case r.msg.count == 0:
	case r.file.stream():
		err = r.readStream()
	default:
		err = r.readData()
	}
	r.reply = r.frame(tRead + 1).u32(uint32(r.data.Size()))
	return err
}

func (r *request) readData() error {
	if err := r.take(); err != nil {
		return err
	}
	size, off := int(r.msg.count), int64(r.msg.offset)
	d, err := r.file.handle.Read(r.ctx, size, off)
	if err != nil {
		return err
	}
	if r.file.big() {
		if d, err = r.whole(d, size, off); err != nil {
			return err
		}
	}
	if err := r.inMemory(&d); err != nil {
		r.drop(d)
		r.s.srv.log.warn("9p: read of a database file failed", "cause", err)
		return linux.EIO
	}
	if d.Size() > size {
		r.drop(d)
		return linux.EIO // never: a handle returns at most what it was asked for
	}
	r.data = d
	return nil
}

// drop is for data in place of which the client gets an error.
func (r *request) drop(d tree.Data) {
	if d.Failed != nil {
		d.Failed()
	}
	if d.Done != nil {
		d.Done()
	}
}

// take waits for room for the reply.
func (r *request) take() error {
	n := int64(r.msg.count)
	if err := r.s.conn.bytes.take(r.ctx, n, r.file.pins()); err != nil {
		return err
	}
	r.taken = n
	return nil
}

// whole completes a read of a bigfile: what is missing inside the size would become zeros that stay
// in the client's page cache, so it is read again, and if there is no more the read fails.
func (r *request) whole(d tree.Data, size int, off int64) (tree.Data, error) {
	for d.Size() < size {
		a, err := r.file.node.Attr(r.ctx)
		if err != nil {
			r.drop(d)
			return tree.Data{}, err
		}
		got := int64(d.Size())
		want := min(int64(size), a.Size-off)
		if got >= want {
			break // the end of the file
		}
		more, err := r.file.handle.Read(r.ctx, int(want-got), off+got)
		if err == nil && more.Size() == 0 {
			err = linux.EIO
		}
		if err != nil {
			r.drop(d)
			return tree.Data{}, err
		}
		d = join(d, more)
	}
	return d, nil
}

func join(a, b tree.Data) tree.Data {
	pieces := append(append([]zcore.Piece(nil), a.Pieces...), b.Pieces...)
	both := func(f, g func()) func() {
		return func() {
			for _, fn := range []func(){f, g} {
				if fn != nil {
					fn()
				}
			}
		}
	}
	return tree.Data{Pieces: pieces, Done: both(a.Done, b.Done), Failed: both(a.Failed, b.Failed)}
}

// inMemory reads the pieces that are ranges of a file, but for long ones that a socket takes as they are.
func (r *request) inMemory(d *tree.Data) error {
	var pieces []zcore.Piece
	from := sendfileFrom
	if r.busy {
		from = sendfileBusy
	}
	for i, p := range d.Pieces {
		if p.File == nil || p.Len >= from && r.s.conn.isSocket() {
			continue
		}
		if pieces == nil {
			pieces = append(pieces, d.Pieces...)
		}
		buf := r.s.srv.buffers.get(p.Len)
		r.lent = append(r.lent, buf)
		if err := readFile(p.File, buf, p.Off); err != nil {
			return err
		}
		if err := p.Check(); err != nil {
			return err
		}
		pieces[i] = zcore.Piece{Mem: buf}
	}
	if pieces != nil {
		d.Pieces = pieces
	}
	return nil
}

// readStream waits for a message; the tree pads it. When the request is flushed the reply is a blank line:
// clients skip those, and nothing is lost by it.
func (r *request) readStream() error {
	if r.msg.count > freeStream {
		if err := r.take(); err != nil {
			return err
		}
	}
	d, err := r.file.handle.Read(r.ctx, int(r.msg.count), int64(r.msg.offset))
	switch {
	case err == nil:
		r.data = d
	case r.ctx.Err() != nil:
		r.data = tree.Data{Pieces: []zcore.Piece{{Mem: bytes.Repeat([]byte{'\n'}, int(r.msg.count))}}}
	default:
		return err
	}
	return nil
}
