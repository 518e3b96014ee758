package main

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"wcfs/zcore/zodb"
)

// catCmd is `wcfs cat TARGET PATH`.
type catCmd struct {
	targetArgs
	At     string `placeholder:"TID" help:"Show the bigfile whose oid PATH is as of this revision, or moment like -10m."`
	Offset int64  `default:"0" help:"Begin at this byte."`
	Length int64  `default:"-1" help:"Write at most this many bytes; all by default."`
}

// catChunk is how much is read at once: half a block of the usual size.
const catChunk = 1 << 20

// Run streams a file to stdout.
func (c *catCmd) Run(p *program) error {
	if c.Offset < 0 {
		return usagef("--offset must not be negative")
	}
	if err := c.atPath(); err != nil {
		return err
	}
	t, err := c.openTarget(p)
	if err != nil {
		return err
	}
	defer t.close()
	name, err := c.where(p.ctx, t)
	if err != nil {
		return err
	}
	if name, err = follow(p.ctx, t, name); err != nil {
		return c.explain(err)
	}
	f, err := t.open(p.ctx, name)
	if err != nil {
		return c.explain(err)
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
			return c.explain(err)
		}
	}
	return nil
}

// atPath makes the path of the bigfile that --at and an oid name.
func (c *catCmd) atPath() error {
	if c.At == "" {
		return nil
	}
	at := strings.TrimPrefix(c.At, "@")
	if _, err := zodb.ParseMoment(at, time.Now()); err != nil && c.Tags == "" && kindOf(c.Target) == aZURL {
		return usagef("--at: %v", err)
	}
	oid, err := zodb.ParseOid(path.Base(c.Path))
	if err != nil {
		return usagef("with --at PATH is the oid of a bigfile: %v", err)
	}
	c.Path = fmt.Sprintf("@%s/bigfile/%s", at, oid)
	return nil
}
