package httpsrv

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync"
	"time"

	"wcfs/zcore"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

const (
	maxMapChanges = 8 << 20 // changed blocks remembered of one file
	maxMaps       = 4       // files remembered
	mapRest       = 20      // a map is made anew after so many times as long as making it took
)

// fileMap is what is known of a file's history, newest first. It grows while it is being made.
type fileMap struct {
	oid   zodb.Oid
	at    zodb.Tid // head as of which it is
	began time.Time

	mu      sync.Mutex
	blksize int64         // mu
	revs    []revision    // mu; a prefix of all while it is being made
	have    []zdata.Blk   // mu; blocks that are there at head, ascending; others are holes
	changes int           // mu; in revs
	looked  float64       // mu; how much of the blocks at head was looked at, 0 to 1
	done    bool          // mu
	took    time.Duration // mu
	end     string        // mu; why it does not reach back to the beginning; "" where it does
	used    time.Time     // mu
}

// maps are those of all files. One is made at a time.
type maps struct {
	mu      sync.Mutex
	m       map[zodb.Oid]*fileMap // mu
	next    map[zodb.Oid]*fileMap // mu; being made anew
	one     chan struct{}         // cap 1
	running sync.WaitGroup
}

// fileMap returns what is known of a file, and has it found out, or found out anew where head has moved since.
func (s *Server) fileMap(oid zodb.Oid) *fileMap {
	head, now := s.opts.Core.Head(), time.Now()
	s.maps.mu.Lock()
	defer s.maps.mu.Unlock()
	if n := s.maps.next[oid]; n != nil && n.ready() {
		s.maps.m[oid] = n
		delete(s.maps.next, oid)
	}
	m := s.maps.m[oid]
	if m == nil {
		m = s.makeMap(oid, head)
		s.maps.m[oid] = m
		s.forgetMaps()
	} else if took, done := m.state(); done && m.at < head && s.maps.next[oid] == nil && now.Sub(m.began) > mapRest*took {
		s.maps.next[oid] = s.makeMap(oid, head)
	}
	m.mu.Lock()
	m.used = now
	m.mu.Unlock()
	return m
}

func (m *fileMap) ready() bool { _, done := m.state(); return done }

func (m *fileMap) state() (took time.Duration, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.took, m.done
}

// forgetMaps leaves those used last. maps.mu must be held.
func (s *Server) forgetMaps() {
	for len(s.maps.m) > maxMaps {
		var oldest *fileMap
		var when time.Time
		for _, m := range s.maps.m {
			m.mu.Lock()
			if oldest == nil || m.used.Before(when) {
				oldest, when = m, m.used
			}
			m.mu.Unlock()
		}
		delete(s.maps.m, oldest.oid)
	}
}

// makeMap begins to make a map.
func (s *Server) makeMap(oid zodb.Oid, at zodb.Tid) *fileMap {
	m := &fileMap{oid: oid, at: at, began: time.Now(), used: time.Now()}
	s.maps.running.Go(func() {
		select {
		case s.maps.one <- struct{}{}:
			defer func() { <-s.maps.one }()
		case <-s.ctx.Done():
			m.finish(s.ctx.Err())
			return
		}
		began := time.Now()
		err := m.find(s.ctx, s.opts.Storage)
		m.mu.Lock()
		m.took = time.Since(began)
		m.mu.Unlock()
		m.finish(err)
	})
	return m
}

func (m *fileMap) finish(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = true
	switch {
	case errors.Is(err, errEnough):
		m.end = "more than this is not kept in memory"
	case err != nil:
		m.end = err.Error()
	}
}

// find goes through the file's history.
func (m *fileMap) find(ctx context.Context, stor zodb.Storage) error {
	w := &walk{stor: stor}
	began := false
	begin := func() {
		began = true
		have := make([]zdata.Blk, 0, len(w.blks))
		for blk := range w.blks {
			have = append(have, blk)
		}
		sort.Slice(have, func(i, j int) bool { return have[i] < have[j] })
		m.mu.Lock()
		defer m.mu.Unlock()
		m.have, m.blksize = have, w.file.Blksize
	}
	w.begun = func(done, of int) {
		if !began {
			begin()
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.revs) == 0 {
			m.looked = float64(done) / float64(max(of, 1))
		}
	}
	return w.run(ctx, m.oid, m.at, func(r revision) error {
		if !began {
			begin()
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.looked = 1
		m.revs = append(m.revs, r)
		if m.changes += len(r.blks); m.changes > maxMapChanges {
			return errEnough
		}
		return nil
	})
}

// Picture is a part of the map of a file, as a grid of cells. Revision 0 is the newest.
type Picture struct {
	Oid     string     `json:"oid"`
	At      string     `json:"at"` // head as of which it is
	Done    bool       `json:"done"`
	Looked  float64    `json:"looked"` // of the blocks at head, while it is not done
	End     string     `json:"end,omitempty"`
	Blksize int64      `json:"blksize"`
	Blocks  int64      `json:"blocks"` // that were ever there
	Revs    int        `json:"revs"`   // known
	B0      int64      `json:"b0"`
	B1      int64      `json:"b1"`
	R0      int        `json:"r0"`
	R1      int        `json:"r1"`
	Cells   []byte     `json:"cells"`   // W*H, a row a revision or several; 0: nothing changed, 255: all blocks of it in all revisions of it
	Have    []byte     `json:"have"`    // W; how much of the column is there at head
	Tracked []byte     `json:"tracked"` // W; how much of it some client may have cached
	Rows    []Row      `json:"rows"`    // H
	Watches []Standing `json:"watches"`
	W       int        `json:"w"`
	H       int        `json:"h"`
}

// Row is the newest revision of a row.
type Row struct {
	Rev int    `json:"rev"`
	Tid string `json:"tid"`
}

// Standing is a watch at its place among revisions: it sees revision Rev and older.
type Standing struct {
	zcore.FileWatch
	Rev int `json:"rev"`
}

// picture paints [b0, b1) x [r0, r1) on w x h cells at most.
func (m *fileMap) picture(b0, b1 int64, r0, r1, w, h int) *Picture {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &Picture{
		Oid: m.oid.String(), At: m.at.String(), Done: m.done, Looked: m.looked, End: m.end, Blksize: m.blksize, Revs: len(m.revs),
	}
	for _, r := range m.revs {
		p.Blocks = max(p.Blocks, r.size/max(m.blksize, 1))
	}
	if n := len(m.have); n > 0 {
		p.Blocks = max(p.Blocks, int64(m.have[n-1])+1)
	}
	if b1 <= 0 || b1 > p.Blocks {
		b1 = p.Blocks
	}
	if r1 <= 0 || r1 > p.Revs {
		r1 = p.Revs
	}
	p.B0, p.B1, p.R0, p.R1 = max(0, min(b0, b1)), b1, max(0, min(r0, r1)), r1
	p.W, p.H = int(min(int64(w), p.B1-p.B0)), min(h, p.R1-p.R0)
	p.Cells, p.Have, p.Tracked = make([]byte, p.W*p.H), make([]byte, p.W), make([]byte, p.W)
	p.Rows, p.Watches = make([]Row, p.H), []Standing{}
	if p.W > 0 {
		m.paint(p)
	}
	return p
}

// paint fills cells, rows and have. m.mu must be held.
func (m *fileMap) paint(p *Picture) {
	width, height := p.B1-p.B0, p.R1-p.R0
	row, counts, in := -1, make([]int64, p.W), 0
	flush := func() {
		for x, n := range counts {
			if n > 0 {
				lo, hi := p.column(x)
				p.Cells[row*p.W+x] = share(n, (hi-lo)*int64(in))
			}
		}
		clear(counts)
		in = 0
	}
	for i := p.R0; i < p.R1; i++ {
		if y := (i - p.R0) * p.H / height; y != row {
			if row >= 0 {
				flush()
			}
			row = y
			p.Rows[y] = Row{i, m.revs[i].tid.String()}
		}
		in++
		p.count(m.revs[i].blks, width, counts)
	}
	if row >= 0 {
		flush()
	}
	p.count(m.have, width, counts)
	for x, n := range counts {
		lo, hi := p.column(x)
		p.Have[x] = share(n, hi-lo)
	}
}

// column returns the blocks of a column.
func (p *Picture) column(x int) (lo, hi int64) {
	width, w := p.B1-p.B0, int64(p.W)
	up := func(x int64) int64 { return p.B0 + (x*width+w-1)/w } // the first block that count puts there
	return up(int64(x)), up(int64(x) + 1)
}

// count adds ascending blocks to the columns they are in.
func (p *Picture) count(blks []zdata.Blk, width int64, counts []int64) {
	i := sort.Search(len(blks), func(i int) bool { return int64(blks[i]) >= p.B0 })
	for ; i < len(blks) && int64(blks[i]) < p.B1; i++ {
		counts[(int64(blks[i])-p.B0)*int64(p.W)/width]++
	}
}

// share is n of all as a byte, which is 0 only when n is.
func share(n, all int64) byte {
	if n <= 0 || all <= 0 {
		return 0
	}
	return byte(1 + min(n, all)*254/all)
}

// standings places watches among the revisions.
func (m *fileMap) standings(list []zcore.FileWatch) []Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Standing, 0, len(list))
	for _, w := range list {
		at, err := zodb.ParseTid(w.At)
		if err != nil {
			continue
		}
		out = append(out, Standing{w, sort.Search(len(m.revs), func(i int) bool { return m.revs[i].tid <= at })})
	}
	return out
}

// RevInfo is one revision for people.
type RevInfo struct {
	Rev         int       `json:"rev"`
	Tid         string    `json:"tid"`
	Time        time.Time `json:"time"`
	Size        int64     `json:"size"`
	Changed     int       `json:"changed"`
	Blocks      []int64   `json:"blocks"` // at most maxRevBlocks
	User        string    `json:"user,omitempty"`
	Description string    `json:"description,omitempty"`
}

const maxRevBlocks = 1000

// list returns up to n revisions from one on.
func (m *fileMap) list(from, n int) []RevInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []RevInfo{}
	for i := max(from, 0); i < len(m.revs) && len(out) < n; i++ {
		r := m.revs[i]
		info := RevInfo{Rev: i, Tid: r.tid.String(), Time: r.tid.Time(), Size: r.size, Changed: len(r.blks), Blocks: []int64{}}
		for _, blk := range r.blks[:min(len(r.blks), maxRevBlocks)] {
			info.Blocks = append(info.Blocks, int64(blk))
		}
		out = append(out, info)
	}
	return out
}

// nextChange returns the number of the nearest revision before rev, or after it, that changed a block; -1 where none is known.
func (m *fileMap) nextChange(blk zdata.Blk, rev int, later bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	step := 1
	if later {
		step = -1
	}
	for i := min(rev, len(m.revs)) + step; i >= 0 && i < len(m.revs); i += step {
		if _, ok := slices.BinarySearch(m.revs[i].blks, blk); ok {
			return i
		}
	}
	return -1
}
