package zdata

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// TestTemplate: what a template takes for data in records that may be damaged or of another form is what decoding
// them gives.
func TestTemplate(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	styles := []record.Style{record.Py3(), {Protocol: 1, Py2: true}, {Protocol: 2, Py2: true}, {Protocol: 2}}
	fit := 0
	var m template
	for i := range 20000 {
		s := styles[rng.IntN(1+i%len(styles))]
		data := make([]byte, rng.IntN(600))
		for j := range data {
			data[j] = "BTCU.q\x00\x01\x08\xff"[rng.IntN(10)]
		}
		rec := s.Data(data)
		if rng.IntN(10) == 0 {
			rec = s.Blk0(data)
		}
		for range max(0, rng.IntN(6)-3) {
			j := rng.IntN(len(rec))
			if rng.IntN(2) == 0 {
				j = rng.IntN(min(len(rec), 64))
			}
			rec[j] = byte(rng.IntN(256))
		}
		obj, err := record.Decode(1, zodb.Record{Data: rec})
		if got, ok := m.data(rec); ok {
			fit++
			if err != nil || obj.State.Kind != record.Bytes || !bytes.Equal(got, obj.State.Data) {
				t.Fatalf("seed %d: %q: data %q; decoded %+v, %v", seed, rec, got, obj, err)
			}
		}
		if err == nil && obj.Class.Name == "ZData" && obj.State.Kind == record.Bytes {
			m.learn(rec, obj)
			got, ok := m.data(rec)
			if ok && !bytes.Equal(got, obj.State.Data) {
				t.Fatalf("seed %d: %q: learnt %q", seed, rec, got)
			}
		}
	}
	if fit < 1000 {
		t.Errorf("seed %d: only %d records had the form of the one before", seed, fit)
	}
}
