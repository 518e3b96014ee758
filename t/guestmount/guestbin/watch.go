package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"wcfs/t/guestmount/plan"
	"wcfs/zcore/tree/treetest"
)

// watch sets up a base watch of a file as of head, based on head, for which no pin can be due, reads
// the base and ends the watch. Last it writes to another link as a shell does.
func watch(w plan.Watch, m *treetest.Manifest) error {
	file := m.Files[0]
	rev := file.Revs[len(file.Revs)-1]
	f, err := os.OpenFile(filepath.Join(w.Dir, w.Name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := ask(f, fmt.Sprintf("1 watch %s @%s base @%s", file.Oid, m.Head, m.Head), "1 ok"); err != nil {
		return err
	}
	base, err := os.Open(filepath.Join(w.Dir, "base", m.Head.String(), "bigfile", file.Oid.String()))
	if err != nil {
		return err
	}
	defer base.Close()
	block := make([]byte, rev.Blksize)
	for blk, want := range rev.Blocks {
		if _, err := base.ReadAt(block, int64(blk)*rev.Blksize); err != nil {
			return err
		}
		if treetest.Sum(block) != want {
			return fmt.Errorf("base of %s: block %d is not that of @%s", file.Oid, blk, m.Head)
		}
	}
	if err := ask(f, fmt.Sprintf("3 watch %s -", file.Oid), "3 ok"); err != nil {
		return err
	}
	// as a shell's ">" does: the kernel truncates
	return os.WriteFile(filepath.Join(w.Dir, w.Name), []byte("1 bye\n"), 0o666)
}

// ask sends a line and wants one, by pwrite and pread with a buffer as small and aligned as v9fs and
// virtfs need it.
func ask(f *os.File, line, want string) error {
	if _, err := f.WriteAt([]byte(line+"\n"), 0); err != nil {
		return fmt.Errorf("write %q: %w", line, err)
	}
	page, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Munmap(page) }()
	for {
		n, err := syscall.Pread(int(f.Fd()), page, 0)
		if err != nil {
			return fmt.Errorf("answer to %q: %w", line, err)
		}
		if n == 0 {
			return errors.New("end of file instead of an answer")
		}
		for got := range bytes.Lines(page[:n]) {
			switch text := strings.TrimSpace(string(got)); text {
			case "": // padding, or a sign of life
			case want:
				return nil
			default:
				return fmt.Errorf("%q is answered %q, want %q", line, text, want)
			}
		}
	}
}
