package zcore

import (
	"sync/atomic"

	"wcfs/zcore/history"
)

// traffic counts READs that were answered with data.
type traffic struct{ reads, bytes atomic.Int64 }

func (t *traffic) note(n int) {
	t.reads.Add(1)
	t.bytes.Add(int64(n))
}

// frontMeter is what is counted for each kind of front.
type frontMeter struct {
	head, rev, base traffic
	errors          atomic.Int64 // READs of head that ended in an error
}

// meter is what the core counts besides Stats. All of it is atomic: counting takes no lock.
type meter struct {
	fronts  [2]frontMeter // of the FUSE mount, of remote guests
	commits atomic.Int64  // announced
	changed atomic.Int64  // tracked blocks that they changed

	lag   history.Histogram // from when a commit was received until it was announced
	age   history.Histogram // from the time of its tid until it was announced
	acks  history.Histogram // from when a pin was sent until it was acknowledged
	waits history.Histogram // of READs and watch requests for pins that were not acknowledged yet
}

func (m *meter) front(dom *Domain) *frontMeter {
	if dom.local {
		return &m.fronts[0]
	}
	return &m.fronts[1]
}

// noteRead counts a READ for the domain.
func (d *Domain) noteRead(n int) { d.reads.note(n) }

// NoteRead counts a READ of the file for a client of dom.
func (r *RevFile) NoteRead(dom *Domain, n int) {
	dom.noteRead(n)
	r.c.meter.front(dom).rev.note(n)
}
