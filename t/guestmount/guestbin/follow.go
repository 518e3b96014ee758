package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"wcfs/t/guestmount/plan"
)

// follow sees every commit in turn: head/at moves, then head has the new content, and so has the
// revision that head/at names.
func follow(f plan.Follow) error {
	head, err := os.Open(filepath.Join(f.Dir, "head/bigfile", f.Oid))
	if err != nil {
		return err
	}
	defer head.Close()
	last := ""
	for n := uint64(1); n <= uint64(f.Commits); n++ {
		at, err := newAt(f.Dir, last)
		if err != nil {
			return fmt.Errorf("commit %d: %w", n, err)
		}
		last = at
		if err := holds(head, f.Size, n); err != nil {
			return fmt.Errorf("commit %d, head @%s: %w", n, at, err)
		}
		rev, err := os.Open(filepath.Join(f.Dir, "@"+at, "bigfile", f.Oid))
		if err != nil {
			return fmt.Errorf("commit %d: %w", n, err)
		}
		err = holds(rev, f.Size, n)
		rev.Close()
		if err != nil {
			return fmt.Errorf("commit %d, @%s: %w", n, at, err)
		}
		fmt.Printf("saw %s %d\n", f.Step, n)
	}
	return nil
}

// newAt waits until head/at is not what it was.
func newAt(dir, was string) (string, error) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "head/at"))
		if err != nil {
			return "", err
		}
		if at := strings.TrimSpace(string(b)); at != was {
			return at, nil
		}
	}
	return "", fmt.Errorf("head/at stays %s", was)
}

// holds reads the whole file and compares it with what commit n wrote.
func holds(file *os.File, size int64, n uint64) error {
	got := make([]byte, size+1)
	k, err := file.ReadAt(got, 0)
	if int64(k) != size {
		return fmt.Errorf("%d bytes, want %d: %w", k, size, err)
	}
	want := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, n), int(size/8))
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d is of commit %d", i, binary.LittleEndian.Uint64(got[i&^7:]))
		}
	}
	return nil
}
