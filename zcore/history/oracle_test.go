package history

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/memstorage"
)

var (
	seedFlag = flag.Uint64("seed", 0, "replay the random history of this seed")
	histFlag = flag.Int("histories", 0, "how many random histories to run; 0: 1000")
)

// TestOracle runs random histories: readers stopped between their steps, commits stopped between
// theirs, trims, queries. What the Tail says is compared with what the generator knows it wrote.
func TestOracle(t *testing.T) {
	if *seedFlag != 0 {
		if err := runHistory(*seedFlag); err != nil {
			t.Fatal(err)
		}
		return
	}
	n := histories()
	var next, failed atomic.Uint64
	next.Store(uint64(time.Now().UnixNano()))
	last := next.Load() + uint64(n)
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) { // some of them wait
		wg.Go(func() {
			for seed := next.Add(1); seed <= last && failed.Load() == 0; seed = next.Add(1) {
				if err := runHistory(seed); err != nil {
					failed.Store(seed)
					t.Errorf("go test -run TestOracle -seed %d: %v", seed, err)
				}
			}
		})
	}
	wg.Wait()
}

// histories is how many to run. A long run has a million, of which the race detector is worth a few.
func histories() int {
	switch {
	case *histFlag != 0:
		return *histFlag
	case os.Getenv("WCFS_SOAK") != "" && raceEnabled:
		return 20_000
	case os.Getenv("WCFS_SOAK") != "":
		return 1_000_000
	case testing.Short():
		return 200
	}
	return 1000
}

// machine is one random history being run.
type machine struct {
	ctx   context.Context
	rng   *rand.Rand
	stor  *slowStore
	db    *zgen.DB
	tail  *Tail
	now   time.Time
	view  zodb.Tid
	gap   bool // a gap was published: exactness is not promised for what it hides
	files map[zodb.Oid]*File
	seen  map[zodb.Oid]map[Blk]bool // tracked
	reads []*pendingRead
	loads []*pendingLoad
	slow  []*slowRead
}

// slowStore is a storage whose loads can be held back after they have got their answer.
type slowStore struct{ *memstorage.Store }

// slowRead is a reader whose first load is held back.
type slowRead struct {
	f               *File
	blk             Blk
	parked, release chan struct{}
	done            chan error
}

type slowKey struct{}

func (s *slowStore) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	rec, err := s.Store.LoadAt(ctx, oid, at)
	if r, ok := ctx.Value(slowKey{}).(*slowRead); ok {
		select {
		case r.parked <- struct{}{}:
		default:
		}
		<-r.release
	}
	return rec, err
}

// beginSlow starts a reader of a block and returns when it is in a load, or done.
func (m *machine) beginSlow() error {
	f, err := m.pickFile()
	if f == nil || err != nil {
		return err
	}
	blk := Blk(m.rng.Int64N(45))
	if n := len(m.slow); n > 0 && m.rng.IntN(4) == 0 { // maybe a load of another revision
		f, blk = m.slow[n-1].f, m.slow[n-1].blk
	}
	r := &slowRead{f, blk, make(chan struct{}, 1), make(chan struct{}), make(chan error, 1)}
	ctx := context.WithValue(m.ctx, slowKey{}, r)
	v, hold := m.view, m.tail.Hold(m.view)
	joined := m.rng.IntN(2) == 0 // sometimes the lookup is fast, so that the block load is held back
	go func() {
		defer hold.Release()
		look := ctx
		if joined {
			look = m.ctx
		}
		mp, _, err := m.tail.Lookup(look, f.BigFile, blk, v)
		if err == nil && !mp.Hole {
			var b *Block
			if b, err = m.tail.Block(ctx, mp.ZBlk, v, f.Blksize); err == nil && string(b.Data) != string(trimZeros(m.db.Data(f.Oid, blk, v))) {
				err = fmt.Errorf("f<%s>[%d]@%s: a slow load is wrong: serial %s", f.Oid, blk, v, b.Serial)
			}
		}
		r.done <- err
	}()
	select {
	case <-r.parked:
		m.slow = append(m.slow, r)
		return nil
	case err := <-r.done:
		return err
	case <-time.After(2 * time.Millisecond): // it waits for a load of another
		m.slow = append(m.slow, r)
		return nil
	}
}

func (m *machine) endSlow() error {
	for _, r := range m.slow {
		close(r.release)
	}
	for _, r := range m.slow {
		if err := <-r.done; err != nil {
			return err
		}
	}
	m.slow = nil
	return nil
}

// pendingRead is a reader that has looked up and not tracked yet.
type pendingRead struct {
	f    *File
	blk  Blk
	v    zodb.Tid
	m    Mapping
	path []btree.Step
	hold *Hold
}

// pendingLoad is a reader that has loaded what it tracked and not said so yet.
type pendingLoad struct {
	r *pendingRead
	b *Block
}

func runHistory(seed uint64) (err error) {
	m := &machine{
		ctx: context.Background(), rng: rand.New(rand.NewPCG(seed, 1)), stor: &slowStore{memstorage.New()},
		now: time.Unix(0, 0), files: map[zodb.Oid]*File{}, seen: map[zodb.Oid]map[Blk]bool{},
	}
	m.db = zgen.New(m.stor, zgen.Options{LeafMax: 2 + m.rng.IntN(3), NodeMax: 2 + m.rng.IntN(3)})
	for range 1 + m.rng.IntN(10) {
		if _, err := m.db.Random(m.rng, zgen.Mix{}); err != nil {
			return err
		}
	}
	m.view = m.db.Head()
	bound := 64 << 20
	if m.rng.IntN(4) == 0 {
		bound = 1500 // nearly nothing stays cached
	}
	m.tail = New(m.stor, m.view, Options{Retention: 8 * time.Second, Now: func() time.Time { return m.now }, NodeBytes: bound, BlockBytes: bound})
	defer func() { err = errors.Join(err, m.endSlow()) }()
	for range 40 {
		if err := m.step(); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) step() error {
	switch m.rng.IntN(10) {
	case 0, 1, 2:
		return m.commit()
	case 3, 4:
		return m.query()
	default:
		return m.between()
	}
}

// between does what readers do between two steps of a commit.
func (m *machine) between() error {
	for range m.rng.IntN(4) {
		var err error
		switch m.rng.IntN(10) {
		case 0, 1, 2:
			err = m.beginRead()
		case 3:
			err = m.beginSlow()
		case 4:
			err = m.endSlow()
		case 5: // also while a commit is between its steps
			err = m.query()
		case 6:
			m.endLoads()
		default:
			err = m.endRead()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) pickFile() (*File, error) {
	oids := m.db.Files(m.view)
	oid := oids[m.rng.IntN(len(oids))]
	if f := m.files[oid]; f != nil {
		return f, nil
	}
	bf, err := m.tail.BigFile(m.ctx, oid, m.view)
	if err != nil {
		return nil, err
	}
	epoch, err := m.tail.Epoch(m.ctx, bf)
	if err != nil {
		return nil, err
	}
	size, path, err := m.tail.Size(m.ctx, bf, m.view)
	if err != nil {
		return nil, err
	}
	f, wait := m.tail.AddFile(m.view, bf, epoch, size, path)
	if wait != 0 {
		if wait <= m.view {
			return nil, fmt.Errorf("AddFile at %s says to wait for %s", m.view, wait)
		}
		return nil, nil
	}
	m.files[oid], m.seen[oid] = f, map[Blk]bool{}
	return f, nil
}

func (m *machine) beginRead() error {
	f, err := m.pickFile()
	if f == nil || err != nil {
		return err
	}
	r := &pendingRead{f: f, blk: Blk(m.rng.Int64N(45)), v: m.view, hold: m.tail.Hold(m.view)}
	r.m, r.path, err = m.tail.Lookup(m.ctx, f.BigFile, r.blk, r.v)
	if err != nil {
		return err
	}
	if want := m.db.Zblk(f.Oid, r.blk, r.v); want != r.m.ZBlk {
		return fmt.Errorf("f<%s>[%d]@%s: ZBlk %s, want %s", f.Oid, r.blk, r.v, r.m.ZBlk, want)
	}
	m.reads = append(m.reads, r)
	return nil
}

func (m *machine) endRead() error {
	if len(m.reads) == 0 {
		return nil
	}
	i := m.rng.IntN(len(m.reads))
	r := m.reads[i]
	m.reads = slices.Delete(m.reads, i, i+1)
	defer r.hold.Release()
	if w := m.tail.Track(r.f, r.blk, r.v, r.m, r.path); w != 0 {
		if w <= r.v {
			return fmt.Errorf("Track at %s says to wait for %s", r.v, w)
		}
		return nil // a real reader waits for the view and begins anew
	}
	m.seen[r.f.Oid][r.blk] = true
	if r.m.Hole || len(m.slow) > 0 { // a load of ours would join a slow one
		return nil
	}
	b, err := m.tail.Block(m.ctx, r.m.ZBlk, r.v, r.f.Blksize)
	if err != nil {
		return err
	}
	if want := trimZeros(m.db.Data(r.f.Oid, r.blk, r.v)); string(want) != string(b.Data) {
		return fmt.Errorf("f<%s>[%d]@%s: content of serial %s is wrong", r.f.Oid, r.blk, r.v, b.Serial)
	}
	m.loads = append(m.loads, &pendingLoad{r, b})
	if m.rng.IntN(3) > 0 {
		m.endLoads()
	}
	return nil
}

func (m *machine) endLoads() {
	for _, l := range m.loads {
		m.tail.Loaded(l.r.f, l.r.blk, l.r.v, l.r.m, l.b.Serial, l.b.Hash)
	}
	m.loads = nil
}

// commit takes a batch through publish, delta and view, with readers in between.
func (m *machine) commit() error {
	before := m.db.Head()
	var batch []zodb.Commit
	for range 1 + m.rng.IntN(3) {
		tid, err := m.db.Random(m.rng, zgen.Mix{})
		if err != nil {
			return err
		}
		m.now = m.now.Add(time.Second)
		batch = append(batch, zodb.Commit{Tid: tid, Oids: m.stor.Changed(tid)})
	}
	last := batch[len(batch)-1].Tid
	if m.rng.IntN(25) == 0 {
		m.gap = true
		batch = []zodb.Commit{{Tid: last, Gap: before}}
	}
	m.tail.Publish(batch)
	for _, c := range batch {
		if err := m.between(); err != nil {
			return err
		}
		if err := m.checkDelta(c); err != nil {
			return err
		}
	}
	if err := m.between(); err != nil {
		return err
	}
	m.view = last
	for _, f := range m.files {
		if size, _ := m.tail.Attr(f, m.view); size != m.db.Size(f.Oid, m.view) {
			return fmt.Errorf("f<%s>@%s: size %d, want %d", f.Oid, m.view, size, m.db.Size(f.Oid, m.view))
		}
	}
	m.tail.Trim()
	return nil
}

func (m *machine) checkDelta(c zodb.Commit) error {
	got, err := m.tail.Delta(m.ctx, c)
	if err != nil {
		return err
	}
	blks := map[zodb.Oid][]Blk{}
	for _, d := range got {
		blks[d.File.Oid] = d.Blocks
		if err := m.checkOld(d, c); err != nil {
			return err
		}
	}
	for oid := range m.files {
		want := map[Blk]bool{}
		for _, tid := range m.db.Tids() {
			if tid == c.Tid || c.Gap != 0 && c.Gap < tid && tid < c.Tid {
				changed, _ := m.db.Changed(oid, tid)
				for _, blk := range changed {
					if m.seen[oid][blk] && (c.Gap == 0 || m.differs(oid, blk, c.Gap, c.Tid)) {
						want[blk] = true
					}
				}
			}
		}
		for blk := range want {
			if !slices.Contains(blks[oid], blk) {
				return fmt.Errorf("δF(%s) of f<%s> misses block %d: has %v", c.Tid, oid, blk, blks[oid])
			}
		}
		if c.Gap == 0 && len(want) != len(blks[oid]) {
			return fmt.Errorf("δF(%s) of f<%s> is %v, want %v", c.Tid, oid, blks[oid], want)
		}
	}
	return nil
}

// checkOld checks what a delta says of the content that is no more.
func (m *machine) checkOld(d FileDelta, c zodb.Commit) error {
	before := c.Tid - 1
	if c.Gap != 0 {
		before = c.Gap
	}
	for i, old := range d.Old {
		blk := d.Blocks[i]
		if hole := m.db.Zblk(d.File.Oid, blk, before) == 0; old.Hole != hole {
			return fmt.Errorf("δF(%s) of f<%s>[%d]: was a hole: %v", c.Tid, d.File.Oid, blk, old.Hole)
		}
		if zblk := m.db.Zblk(d.File.Oid, blk, before); old.ZBlk != zblk {
			return fmt.Errorf("δF(%s) of f<%s>[%d]: was ZBlk %s, want %s", c.Tid, d.File.Oid, blk, old.ZBlk, zblk)
		}
		if old.Serial != 0 && !old.Hole && old.Hash != m.tail.Hash(m.db.Data(d.File.Oid, blk, before)) {
			return fmt.Errorf("δF(%s) of f<%s>[%d]: the hash is not that of the old content", c.Tid, d.File.Oid, blk)
		}
	}
	return nil
}

// differs reports whether what a block maps to, or its ZBlk's serial, differs between two revisions.
func (m *machine) differs(oid zodb.Oid, blk zdata.Blk, a, b zodb.Tid) bool {
	za, zb := m.db.Zblk(oid, blk, a), m.db.Zblk(oid, blk, b)
	if za != zb {
		return true
	}
	ra, _ := m.stor.LoadAt(m.ctx, za, a)
	rb, _ := m.stor.LoadAt(m.ctx, zb, b)
	return ra.Serial != rb.Serial
}

// query asks what watches and readers ask.
func (m *machine) query() error {
	tail, _ := m.tail.Bounds()
	for oid, f := range m.files {
		tids := slices.DeleteFunc(m.db.Tids(), func(tid zodb.Tid) bool {
			return tid < max(tail, m.tail.bottom(f)) || tid > m.view || tid >= m.tail.t0 && tid < m.tail.Floor(f, tid)
		})
		if len(tids) == 0 {
			continue
		}
		at := tids[m.rng.IntN(len(tids))]
		if m.tail.Unknown(at) {
			continue
		}
		if err := m.querySince(f, at); err != nil {
			return err
		}
		for blk := Blk(0); blk < 45; blk += 1 + Blk(m.rng.IntN(5)) {
			got, err := m.tail.BlkRevAt(m.ctx, f, blk, at)
			if err != nil {
				return err
			}
			want := max(m.db.BlkRevAt(oid, blk, at), m.tail.Floor(f, at))
			if got != want && !m.gap || got > at || m.differs(oid, blk, got, at) {
				return fmt.Errorf("BlkRevAt(f<%s>[%d] @%s) = %s, want %s", oid, blk, at, got, want)
			}
			if up := m.tail.RevUpper(f, blk, m.view); m.seen[oid][blk] && !m.gap && up < m.db.BlkRevAt(oid, blk, m.view) {
				return fmt.Errorf("RevUpper(f<%s>[%d] @%s) = %s is too low", oid, blk, m.view, up)
			}
		}
	}
	return nil
}

func (m *machine) querySince(f *File, at zodb.Tid) error {
	got, err := m.tail.ChangedSince(m.ctx, f, at, m.view)
	if err != nil {
		return err
	}
	var want []Blk
	for blk := range m.seen[f.Oid] {
		if m.db.BlkRevAt(f.Oid, blk, m.view) > at {
			want = append(want, blk)
		}
	}
	slices.Sort(want)
	if !m.gap && !slices.Equal(got, want) {
		return fmt.Errorf("ChangedSince(f<%s> @%s, %s) = %v, want %v", f.Oid, at, m.view, got, want)
	}
	for _, blk := range want {
		if !slices.Contains(got, blk) && m.differs(f.Oid, blk, at, m.view) {
			return fmt.Errorf("ChangedSince(f<%s> @%s, %s) misses %d", f.Oid, at, m.view, blk)
		}
	}
	return nil
}
