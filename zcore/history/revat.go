package history

import (
	"context"
	"fmt"
	"slices"

	"wcfs/zcore/zodb"
)

// Floor is the least revision BlkRevAt answers for a file as of at: T0, or when the file was made; for an at
// before T0 how far back may be asked about instead of T0.
func (t *Tail) Floor(f *File, at zodb.Tid) zodb.Tid {
	if at >= t.t0 {
		return max(t.t0, f.Epoch)
	}
	return t.bottom(f)
}

// bottom is the least revision that is told apart from older ones.
func (t *Tail) bottom(f *File) zodb.Tid { return max(t.back, f.Epoch) }

// BlkRevAt returns the largest tid <= at whose commit changed a block: its mapping in blktab, or the
// ZBlk it names; never below Floor, which is the answer for holes and blocks untouched since. at must
// be >= Floor and published. Pins name what it returns.
func (t *Tail) BlkRevAt(ctx context.Context, f *File, blk Blk, at zodb.Tid) (zodb.Tid, error) {
	floor := t.Floor(f, at)
	if at < floor {
		return 0, zodb.Answer(fmt.Errorf("f<%s>: no history @%s: it begins @%s", f.Oid, at, floor))
	}
	if at == floor {
		return floor, nil
	}
	rev, err := t.LastChange(ctx, f, blk, at)
	return max(rev, floor), err
}

// LastChange is BlkRevAt without T0 as its floor, so that it tells also whether a block changed after a tid before T0.
func (t *Tail) LastChange(ctx context.Context, f *File, blk Blk, at zodb.Tid) (zodb.Tid, error) {
	floor := t.bottom(f)
	if at <= floor {
		return floor, nil
	}
	t.mu.Lock()
	b := f.find(blk)
	if b == nil || at < t.tail { // what is recorded reaches back to tail only
		t.mu.Unlock()
		return t.walkBack(ctx, f, blk, at, floor)
	}
	since, base := b.since, b.base
	var rev zodb.Tid
	if at >= since {
		rev = f.revAt(blk, at)
	}
	t.mu.Unlock()
	if rev != 0 {
		return max(rev, floor), nil
	}
	if base == 0 {
		var err error
		base, err = t.walkBack(ctx, f, blk, since, floor)
		if isAnswer(err) { // packed away meanwhile, or damaged; it has not changed since then
			base, err = since, nil
		}
		if err != nil {
			return 0, err
		}
		t.mu.Lock()
		if b := f.find(blk); b != nil && b.since == since {
			b.base = base
		}
		t.mu.Unlock()
	}
	if base <= at {
		return base, nil
	}
	return t.walkBack(ctx, f, blk, at, floor)
}

// BlkRevAbove returns BlkRevAt if that is > base, else base. The block need not be tracked.
func (t *Tail) BlkRevAbove(ctx context.Context, f *File, blk Blk, at, base zodb.Tid) (zodb.Tid, error) {
	return t.walkBack(ctx, f, blk, at, max(base, t.Floor(f, at)))
}

// walkBack finds BlkRevAt in the database, or best if that is not older: the later of the serial of the ZBlk and the last tid at
// which blktab came to name it. Between two changes of the nodes on the path the mapping cannot change.
func (t *Tail) walkBack(ctx context.Context, f *File, blk Blk, at, best zodb.Tid) (zodb.Tid, error) {
	if at <= best {
		return best, nil
	}
	m, path, err := t.Lookup(ctx, f.BigFile, blk, at)
	if err != nil {
		return 0, err
	}
	if !m.Hole {
		serial, err := t.serialAt(ctx, m.ZBlk, at, best)
		if err != nil {
			return 0, err
		}
		best = max(best, serial)
	}
	for {
		changed := pathMax(path)
		if changed <= best {
			return best, nil
		}
		var old Mapping
		old, path, err = t.Lookup(ctx, f.BigFile, blk, changed-1)
		if isAnswer(err) { // packed away, or damaged: what came before cannot be opened either
			return changed, nil
		}
		if err != nil {
			return 0, err
		}
		if old != m {
			return changed, nil
		}
	}
}

// RevUpper returns an upper bound of LastChange(blk, v) for a tracked block, without loading anything.
// Where nothing is recorded up to v, any bound as of since will do: LastChange never falls with at.
func (t *Tail) RevUpper(f *File, blk Blk, v zodb.Tid) zodb.Tid {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := f.find(blk)
	if b == nil {
		return v
	}
	if rev := f.revAt(blk, v); rev != 0 {
		return rev
	}
	switch {
	case b.base != 0:
		return b.base
	case len(f.revs[blk]) > 0: // it changed after v: m and zserial are what it is now
		return b.since
	case b.zblk == noZBlk:
		return max(t.bottom(f), b.pathMax)
	case b.zserial != 0:
		return min(b.since, max(t.bottom(f), b.pathMax, b.zserial))
	}
	return b.since
}

// ChangedSince returns, ascending, the tracked blocks with at < LastChange(blk, v): those that changed in
// (at, v]. It looks at the commits since at and the blocks tracked since then, not at all blocks.
func (t *Tail) ChangedSince(ctx context.Context, f *File, at, v zodb.Tid) ([]Blk, error) {
	found := map[Blk]bool{}
	var ask []Blk
	t.mu.Lock()
	deltas := f.deltas[f.deltaAfter(at):] // held: they stay as they are
	for i := len(f.recent) - 1; i >= 0 && f.recent[i].since > at; i-- {
		ask = append(ask, f.recent[i].blk)
	}
	t.mu.Unlock()
	for _, d := range deltas {
		if d.tid > v {
			break
		}
		for _, blk := range d.blks {
			found[blk] = true
		}
	}
	for _, blk := range ask {
		if found[blk] || t.RevUpper(f, blk, v) <= at {
			continue
		}
		rev, err := t.LastChange(ctx, f, blk, v)
		if isAnswer(err) { // it cannot be told: it may have
			rev, err = v, nil
		}
		if err != nil {
			return nil, err
		}
		if rev > at {
			found[blk] = true
		}
	}
	out := make([]Blk, 0, len(found))
	for blk := range found {
		out = append(out, blk)
	}
	slices.Sort(out)
	return out, nil
}
