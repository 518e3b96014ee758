package history

import (
	"sync/atomic"
	"time"
)

// histogramBounds are the upper bounds of the buckets of a Histogram: from what memory takes to what nobody waits for.
var histogramBounds = [...]time.Duration{
	100 * time.Microsecond, 300 * time.Microsecond, time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond,
	100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second,
}

// Histogram counts durations. It costs an observer two atomic additions, and needs no lock.
type Histogram struct {
	counts [len(histogramBounds) + 1]atomic.Int64
	sum    atomic.Int64 // ns
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(histogramBounds) && d > histogramBounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(max(d, 0)))
}

// Durations is what a Histogram has counted.
type Durations struct {
	Count   int64    `json:"count"`
	Sum     float64  `json:"sum_s"`
	Buckets []Bucket `json:"buckets"`
}

// Bucket tells how many were at most Le seconds.
type Bucket struct {
	Le    float64 `json:"le_s"`
	Count int64   `json:"count"`
}

// Read returns what has been counted. Of what is observed meanwhile it may have a part.
func (h *Histogram) Read() Durations {
	d := Durations{Sum: time.Duration(h.sum.Load()).Seconds()}
	for i, le := range histogramBounds {
		d.Count += h.counts[i].Load()
		d.Buckets = append(d.Buckets, Bucket{le.Seconds(), d.Count})
	}
	d.Count += h.counts[len(histogramBounds)].Load()
	return d
}

// Kinds of loads from the database.
const (
	loadNode   = iota // of the BTree
	loadFile          // ZBigFile
	loadSerial        // which revision is current
	loadBlock         // ZBlk with all of its chunks
	loadKinds
)

var loadNames = [loadKinds]string{"node", "file", "serial", "block"}

// meter is what is counted of the database and the caches.
type meter struct {
	loads  [loadKinds]Histogram
	failed atomic.Int64 // loads that ended in an error, a cancelled one too
	plain  atomic.Int64 // blocks found as they are in the database's file
}

// begin is called before a load, and what it returns after it.
func (m *meter) begin(kind int) (end func(err error)) {
	began := time.Now()
	return func(err error) {
		m.loads[kind].Observe(time.Since(began))
		if err != nil {
			m.failed.Add(1)
		}
	}
}

// Stats are counters of a Tail.
type Stats struct {
	Loads   map[string]Durations `json:"loads"` // by kind: node, file, serial, block
	Failed  int64                `json:"loads_failed"`
	Plain   int64                `json:"blocks_in_place"` // read from the database's file without a copy
	Nodes   CacheStats           `json:"node_cache"`
	Blocks  CacheStats           `json:"block_cache"`
	Commits int                  `json:"commits_remembered"`
	Bytes   int                  `json:"history_bytes"` // of those
	Holds   int                  `json:"holds"`         // which keep them
}

// CacheStats are counters of one cache.
type CacheStats struct {
	Hits    int64 `json:"hits"`
	Misses  int64 `json:"misses"`
	Entries int   `json:"entries"`
	Bytes   int   `json:"bytes"`
	Bound   int   `json:"bytes_max"`
}

// Stats never waits.
func (t *Tail) Stats() Stats {
	s := Stats{Loads: map[string]Durations{}, Failed: t.meter.failed.Load(), Plain: t.meter.plain.Load()}
	for i, name := range loadNames {
		s.Loads[name] = t.meter.loads[i].Read()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Nodes, s.Blocks = t.nodes.stats(), t.blocks.stats()
	s.Commits, s.Bytes, s.Holds = len(t.list), t.bytes, len(t.holds)
	return s
}

// TrackedOf returns how many blocks of a file are tracked.
func (t *Tail) TrackedOf(f *File) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f.blocks.n
}

// TrackedIn counts the tracked blocks of a file in n equal parts of [lo, hi).
func (t *Tail) TrackedIn(f *File, lo, hi Blk, n int) []int {
	counts := make([]int, n)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range f.blocks.list {
		l := &f.blocks.list[i]
		if l.first >= hi || len(l.blocks) > 0 && l.blocks[len(l.blocks)-1].blk < lo {
			continue
		}
		for j := range l.blocks {
			if blk := l.blocks[j].blk; blk >= lo && blk < hi {
				counts[int(int64(blk-lo)*int64(n)/int64(hi-lo))]++
			}
		}
	}
	return counts
}
