package main

import (
	"errors"
	"fmt"
	"io"
)

// catCmd is `wcfs cat TARGET PATH`.
type catCmd struct {
	targetArgs
	Offset int64 `default:"0" help:"Begin at this byte."`
	Length int64 `default:"-1" help:"Write at most this many bytes; all by default."`
}

// catChunk is how much is read at once: half a block of the usual size.
const catChunk = 1 << 20

// Run streams a file to stdout.
func (c *catCmd) Run(p *program) error {
	if c.Offset < 0 {
		return usagef("--offset must not be negative")
	}
	t, err := c.openTarget(p)
	if err != nil {
		return err
	}
	defer t.close()
	f, err := t.open(p.ctx, cleanPath(c.Path))
	if err != nil {
		return fmt.Errorf("%s: %w", c.Path, err)
	}
	defer f.Close()
	buf := make([]byte, catChunk)
	for off, left := c.Offset, c.Length; left != 0; {
		want := buf
		if left > 0 && left < int64(len(buf)) {
			want = buf[:left]
		}
		n, err := f.ReadAt(want, off)
		if _, werr := p.stdout.Write(want[:n]); werr != nil {
			return werr
		}
		off += int64(n)
		if left > 0 {
			left -= int64(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.Path, err)
		}
	}
	return nil
}
