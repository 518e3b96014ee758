package treetest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"wcfs/zcore/zodb"
)

func checkHeadAt(e *Env) error {
	text, err := readText(e, "head/at")
	if err != nil {
		return err
	}
	at, err := zodb.ParseTid(text)
	if err != nil {
		return fmt.Errorf("head/at: %w", err)
	}
	if at != e.Manifest.Head && !(e.HeadMoves && at > e.Manifest.Head) {
		return fmt.Errorf("head/at is %s, want %s", at, e.Manifest.Head)
	}
	base, err := readText(e, "head/base")
	if err != nil {
		return err
	}
	if b, err := zodb.ParseTid(base); err != nil || b > at {
		return fmt.Errorf("head/base is %q; want a tid <= %s", base, at)
	}
	for _, tid := range e.Manifest.Tids {
		if err := wantText(e, "@"+tid.String()+"/at", tid.String()); err != nil {
			return err
		}
	}
	return nil
}

func checkHeadContent(e *Env) error {
	if e.HeadMoves {
		return nil
	}
	for _, f := range e.Manifest.Files {
		if err := checkContent(e, headPath(f.Oid), f.Revs[len(f.Revs)-1]); err != nil {
			return err
		}
	}
	return nil
}

func checkRevContent(e *Env) error {
	for _, f := range e.Manifest.Files {
		for _, r := range f.Revs {
			if err := checkContent(e, revPath(r.Tid, f.Oid), r); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkBaseContent(e *Env) error {
	if e.NoBase || e.HeadMoves {
		return nil
	}
	for _, f := range e.Manifest.Files {
		if err := checkContent(e, basePath(e.Manifest.Head, f.Oid), f.Revs[len(f.Revs)-1]); err != nil {
			return err
		}
	}
	return nil
}

// checkContent reads a whole file block by block.
func checkContent(e *Env, path string, r Rev) error {
	f, err := e.FS.Open(path, false)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, r.Blksize)
	for blk, want := range r.Blocks {
		off := int64(blk) * r.Blksize
		if n, err := f.ReadAt(block, off); n != len(block) {
			return fmt.Errorf("%s: read at %d: %d bytes of %d: %w", path, off, n, len(block), err)
		}
		if got := Sum(block); got != want {
			return fmt.Errorf("%s: block %d hashes to %s, want %s", path, blk, got, want)
		}
	}
	if n, err := f.ReadAt(block, r.Size); n != 0 || err != io.EOF {
		return fmt.Errorf("%s: read past the end: %d bytes, %v", path, n, err)
	}
	return nil
}

// Sum is the hash of a block in a manifest.
func Sum(block []byte) string {
	h := sha256.Sum256(block)
	return hex.EncodeToString(h[:])
}

func checkBetween(e *Env) error {
	for _, f := range e.Manifest.Files {
		for i, r := range f.Revs {
			if i+1 < len(f.Revs) {
				if err := checkContent(e, revPath(f.Revs[i+1].Tid-1, f.Oid), r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func checkOddReads(e *Env) error {
	for _, f := range e.Manifest.Files {
		if err := oddReads(e, revPath(e.Manifest.Head, f.Oid), f.Revs[len(f.Revs)-1]); err != nil {
			return err
		}
	}
	return nil
}

// oddReads reads in ways that no page cache does, and compares with reads of whole blocks.
func oddReads(e *Env, path string, r Rev) error {
	f, err := e.FS.Open(path, false)
	if err != nil {
		return err
	}
	defer f.Close()
	whole := make([]byte, min(r.Size, 4*r.Blksize))
	start := r.Size - int64(len(whole))
	if n, err := f.ReadAt(whole, start); n != len(whole) {
		return fmt.Errorf("%s: read of the last blocks: %d bytes of %d: %w", path, n, len(whole), err)
	}
	for _, span := range [][2]int64{ // offset from start, size
		{0, 1}, {1, 1}, {r.Blksize - 1, 2}, {r.Blksize - 3, r.Blksize + 7}, {5, 4093},
		{int64(len(whole)) - 1, 1}, {int64(len(whole)) - 5, 100}, {int64(len(whole)) - r.Blksize - 1, 2 * r.Blksize},
		{int64(len(whole)), 1}, {int64(len(whole)) + 12345, 10},
	} {
		off, want := span[0], []byte(nil)
		if off < 0 {
			continue
		}
		if off < int64(len(whole)) {
			want = whole[off:min(off+span[1], int64(len(whole)))]
		}
		got := make([]byte, span[1])
		n, err := f.ReadAt(got, start+off)
		if !bytes.Equal(got[:n], want) || err != nil && err != io.EOF {
			return fmt.Errorf("%s: read of %d at %d: %d bytes (want %d) or other bytes: %v", path, span[1], start+off, n, len(want), err)
		}
	}
	return nil
}

// checkWatch sets a watch up at head, which needs no pin, and says good-bye.
func checkWatch(e *Env) error {
	if e.NoWatch {
		return nil
	}
	name := e.Watch
	if name == "" {
		name = "head/watch"
	}
	oid := e.Manifest.Files[0].Oid
	if _, err := e.FS.Stat(headPath(oid)); err != nil {
		return err
	}
	at, err := readText(e, "head/at")
	if err != nil {
		return err
	}
	w, err := e.FS.OpenStream(name, true)
	if err != nil {
		return err
	}
	defer w.Close()
	in := bufio.NewReaderSize(w, 2048) // below what v9fs passes on in one piece
	base := ""
	if e.BaseWatch {
		base = " base @" + at
	}
	for _, step := range [][2]string{
		{"1 watch " + oid.String() + " @" + at + base, "1 ok"},
		{"3 bla bla", `3 error bad watch: not a watch request: "bla bla"`},
		{"5 watch " + oid.String() + " -", "5 ok"},
	} {
		if _, err := io.WriteString(w, step[0]+"\n"); err != nil {
			return fmt.Errorf("%s: write %q: %w", name, step[0], err)
		}
		got, err := readLine(in)
		if err != nil || got != step[1] {
			return fmt.Errorf("%s: %q is answered %q (%v), want %q", name, step[0], got, err, step[1])
		}
	}
	if _, err := io.WriteString(w, "7 bye\n"); err != nil {
		return fmt.Errorf("%s: bye: %w", name, err)
	}
	// v9fs of Linux 6.12 makes ENODATA of an end that comes as the first answer to a read
	if got, err := readLine(in); err != io.EOF && !errors.Is(err, syscall.ENODATA) {
		return fmt.Errorf("%s: after bye: %q, %v; want the end", name, got, err)
	}
	return nil
}

// readLine skips blank lines: they are padding.
func readLine(in *bufio.Reader) (string, error) {
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSuffix(line, "\n"); line != "" || err != nil {
			return line, err
		}
	}
}
