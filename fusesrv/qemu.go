package fusesrv

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// QEMU serves a guest's virtfs requests by 64 threads: when all of them wait in reads of ours, the write
// that would end the waiting cannot come through. So reads that may wait are bounded per QEMU process,
// with some threads left over.
const (
	qemuMessages = 24 // reads that wait for messages; one more is answered by blank lines
	qemuPins     = 32 // reads under a base, which may wait for pins; one more fails
)

// qemuReads counts the reads of QEMU processes that may be waiting.
type qemuReads struct {
	mu    sync.Mutex
	count map[qemuKey]int // guard: mu
}

type qemuKey struct {
	pid  int
	kind tree.Kind
}

// bound wraps a handle that a QEMU process opened and whose reads may wait.
func (q *qemuReads) bound(h tree.Handle, kind tree.Kind, thread uint32) tree.Handle {
	if kind != tree.Padded && kind != tree.BaseFile {
		return h
	}
	st, err := readStatus(thread)
	if err != nil || !isQEMU(st.tgid) {
		return h
	}
	return &qemuHandle{h, q, qemuKey{st.tgid, kind}}
}

func isQEMU(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.HasPrefix(string(name), "qemu")
}

// enter counts a read, unless there are limit of them.
func (q *qemuReads) enter(key qemuKey, limit int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count[key] >= limit {
		return false
	}
	if q.count == nil {
		q.count = map[qemuKey]int{}
	}
	q.count[key]++
	return true
}

func (q *qemuReads) leave(key qemuKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count[key]--; q.count[key] == 0 {
		delete(q.count, key)
	}
}

// qemuHandle is a file that QEMU has open for a guest.
type qemuHandle struct {
	tree.Handle
	reads *qemuReads
	key   qemuKey
}

func (h *qemuHandle) Read(ctx context.Context, size int, off int64) (tree.Data, error) {
	limit := qemuMessages
	if h.key.kind == tree.BaseFile {
		limit = qemuPins
	}
	if h.reads.enter(h.key, limit) {
		defer h.reads.leave(h.key)
		return h.Handle.Read(ctx, size, off)
	}
	if h.key.kind == tree.BaseFile {
		return tree.Data{}, fmt.Errorf("%d reads of one QEMU process wait for pins already: %w", limit, tree.ErrIO)
	}
	return tree.Data{Pieces: []zcore.Piece{{Mem: bytes.Repeat([]byte{'\n'}, size)}}}, nil
}
