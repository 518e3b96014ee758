package storagetest

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"wcfs/zcore/zodb"
)

// rev is one revision of one object; nil data: the transaction deleted it.
type rev struct {
	tid  zodb.Tid
	data []byte
}

// model is what the database must answer. Safe for use by many goroutines.
type model struct {
	mu   sync.RWMutex
	revs map[zodb.Oid][]rev // guarded by mu; ascending by tid
	txns []zodb.Commit      // guarded by mu; ascending by tid
}

func newModel() *model { return &model{revs: map[zodb.Oid][]rev{}} }

func (m *model) commit(t testing.TB, tid zodb.Tid, objs map[zodb.Oid][]byte) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.txns); n > 0 && m.txns[n-1].Tid >= tid {
		t.Fatalf("backend: tid %s after %s", tid, m.txns[n-1].Tid)
	}
	c := zodb.Commit{Tid: tid}
	for oid, data := range objs {
		m.revs[oid] = append(m.revs[oid], rev{tid, data})
		c.Oids = append(c.Oids, oid)
	}
	slices.Sort(c.Oids)
	m.txns = append(m.txns, c)
}

// undo enters the undo, by transaction tid, of the last transaction.
func (m *model) undo(t testing.TB, tid, undone zodb.Tid) {
	t.Helper()
	objs := map[zodb.Oid][]byte{}
	m.mu.RLock()
	for _, oid := range m.txns[len(m.txns)-1].Oids {
		r := m.revs[oid]
		if r[len(r)-1].tid != undone {
			t.Fatalf("model: %s is not the last transaction of %s", undone, oid)
		}
		objs[oid] = nil
		if len(r) > 1 {
			objs[oid] = r[len(r)-2].data
		}
	}
	m.mu.RUnlock()
	m.commit(t, tid, objs)
}

func (m *model) last() zodb.Tid {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.txns) == 0 {
		return 0
	}
	return m.txns[len(m.txns)-1].Tid
}

// after returns the transactions later than tid.
func (m *model) after(tid zodb.Tid) []zodb.Commit {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i := 0
	for i < len(m.txns) && m.txns[i].Tid <= tid {
		i++
	}
	return slices.Clone(m.txns[i:])
}

// at returns the revision of oid as of at, and whether there was any by then.
func (m *model) at(oid zodb.Oid, at zodb.Tid) (r rev, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, r := range slices.Backward(m.revs[oid]) {
		if r.tid <= at {
			return r, true
		}
	}
	return rev{}, false
}

// until returns the tid of the first revision of oid later than at, TidMax if there is none.
func (m *model) until(oid zodb.Oid, at zodb.Tid) zodb.Tid {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, r := range m.revs[oid] {
		if r.tid > at {
			return r.tid
		}
	}
	return zodb.TidMax
}

func (m *model) oids() []zodb.Oid {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var oids []zodb.Oid
	for oid := range m.revs {
		oids = append(oids, oid)
	}
	slices.Sort(oids)
	return oids
}

func (m *model) pickLive(rnd *rand.Rand) (zodb.Oid, bool) {
	oids := slices.DeleteFunc(m.oids(), func(oid zodb.Oid) bool {
		r, _ := m.at(oid, zodb.TidMax)
		return r.data == nil
	})
	if len(oids) == 0 {
		return 0, false
	}
	return oids[rnd.IntN(len(oids))], true
}

// moments returns the tids at which something changed, and those just before and after.
func (m *model) moments() []zodb.Tid {
	var at []zodb.Tid
	for _, c := range m.after(0) {
		at = append(at, c.Tid-1, c.Tid, c.Tid+1)
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// Record returns an object record as Python could have written it, with payload as its state: two
// pickles that refer to no other object, so that storages which parse what they store are content.
func Record(payload []byte) []byte {
	b := []byte("\x80\x02cstoragetest\nBlob\n.\x80\x03B")
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), '.')
}

func randomRecord(rnd *rand.Rand, size int) []byte {
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(rnd.Uint32())
	}
	return Record(payload)
}
