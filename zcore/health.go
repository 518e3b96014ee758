package zcore

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"wcfs/zcore/zodb"
)

// States of health.
const (
	HealthOK       = "ok"
	HealthDegraded = "degraded" // it serves, but not all or not in time
	HealthFailed   = "failed"   // it serves nothing any more
)

// Health is what .wcfs/health shows, as JSON; scripts may rely on the names. Times are UTC.
type Health struct {
	State   string        `json:"state"`
	Since   time.Time     `json:"since"`         // since when it is so
	Why     string        `json:"why,omitempty"` // one sentence, empty when ok
	Storage StorageHealth `json:"storage"`
	Head    HeadHealth    `json:"head"`
	Loads   LoadHealth    `json:"loads"`
	Files   FileHealth    `json:"files"`
	Pins    PinHealth     `json:"pins"`
}

// StorageHealth tells whether the database can be reached.
type StorageHealth struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"` // while it is being reconnected to
}

// HeadHealth tells how old head is, and how far it is behind what is known of the database.
type HeadHealth struct {
	At     string  `json:"at"`
	Age    float64 `json:"age_s"`  // since the transaction that head is at
	Lag    float64 `json:"lag_s"`  // since the first commit was received that is not announced
	Behind int     `json:"behind"` // commits received and not announced
}

// LoadHealth tells of loads that ended in an error that a client saw.
type LoadHealth struct {
	Failed int64     `json:"failed"` // since the start
	Last   time.Time `json:"last,omitzero"`
	Error  string    `json:"error,omitempty"` // of the last
}

// FileHealth tells of bigfiles that have failed. One counts as long as somebody has it open, and for some minutes,
// unless it was found again.
type FileHealth struct {
	Failed int      `json:"failed"`
	Total  int64    `json:"failed_ever"`
	List   []string `json:"list,omitempty"` // some of them, each with its cause
}

// PinHealth tells of clients that have not acknowledged pins.
type PinHealth struct {
	Clients int     `json:"clients"`       // that owe any
	Owed    int     `json:"owed"`          // pins
	Oldest  float64 `json:"oldest_s"`      // for how long
	Who     string  `json:"who,omitempty"` // the client that owes the oldest
	// Refused are users and guests whose clients made others wait too long, and for how long they get no watches.
	Refused []string `json:"refused,omitempty"`
}

const (
	healthLag     = 2 * time.Second  // head may be behind for so long
	healthOwed    = time.Second      // and a pin be owed
	healthLoads   = 30 * time.Second // a failed load counts for so long
	healthFile    = 10 * time.Minute // and a failed file that nobody has open
	maxFailed     = 1024             // failed files remembered
	maxFailedList = 16               // and listed
)

// vitals are what health is made of and nobody else needs.
type vitals struct {
	mu        sync.Mutex
	began     time.Time // immutable
	outage    time.Time // mu; when the first load failed for want of the database after the last answer; zero: none
	outageErr error     // mu
	loads     LoadHealth
	failed    []*HeadFile // mu; files that have failed
	nFailed   int64       // mu
	state     string      // mu; as last told
	since     time.Time   // mu; of that
}

// noteLoad notes that a client met an error.
func (v *vitals) noteLoad(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.loads.Failed++
	v.loads.Last, v.loads.Error = time.Now().UTC(), err.Error()
}

// noteOutage notes that the database did not answer, nil: that it did.
func (v *vitals) noteOutage(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil:
		v.outage, v.outageErr = time.Time{}, nil
	case v.outage.IsZero():
		v.outage = time.Now()
		fallthrough
	default:
		v.outageErr = err
	}
}

// noteFailed notes a file that has failed.
func (v *vitals) noteFailed(f *HeadFile) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.nFailed++
	if len(v.failed) >= maxFailed {
		v.failed = v.failed[1:]
	}
	v.failed = append(v.failed, f)
}

// trouble is one reason not to be well.
type trouble struct {
	since time.Time
	why   string
}

// Health never waits.
func (c *Core) Health() Health {
	var h Health
	var all []trouble
	add := func(since time.Time, format string, args ...any) {
		all = append(all, trouble{since, fmt.Sprintf(format, args...)})
	}
	now := time.Now()
	c.storageHealth(&h.Storage, add)
	c.headHealth(&h.Head, now, add)
	c.loadHealth(&h, now, add)
	c.fileHealth(&h.Files, now, add)
	c.pinHealth(&h.Pins, now, add)
	h.Pins.Refused = c.stalls.refused()
	h.State = HealthOK
	if len(all) > 0 {
		h.State = HealthDegraded
		h.Since = all[0].since
	}
	var whys []string
	for _, t := range all {
		whys = append(whys, t.why)
		if t.since.Before(h.Since) {
			h.Since = t.since
		}
	}
	h.Why = strings.Join(whys, "; ")
	c.mu.Lock()
	failure, at := c.failure, c.failedAt
	c.mu.Unlock()
	if failure != nil {
		h.State, h.Since, h.Why = HealthFailed, at, "everything fails, start the server anew: "+failure.Error()
	}
	h.Since = c.vitals.settle(h, now).UTC()
	return h
}

// settle finds out since when the state is what it is.
func (v *vitals) settle(h Health, now time.Time) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h.State != HealthOK {
		v.state, v.since = h.State, h.Since
		return h.Since
	}
	if v.state != HealthOK {
		if v.since = now; v.state == "" {
			v.since = v.began
		}
		v.state = HealthOK
	}
	if h.Storage.Connected && h.Storage.Since.After(v.since) {
		v.since = h.Storage.Since
	}
	return v.since
}

func (c *Core) storageHealth(s *StorageHealth, add func(time.Time, string, ...any)) {
	v := &c.vitals
	v.mu.Lock()
	outage, err := v.outage, v.outageErr
	v.mu.Unlock()
	*s = StorageHealth{Connected: true, Since: v.began.UTC()}
	if d, ok := c.stor.(zodb.Connector); ok {
		if conn, ok := d.Connectivity(); ok {
			s.Connected, s.Since = conn.Connected, conn.Since.UTC()
			if !conn.Connected {
				if conn.Err != nil {
					s.Error = conn.Err.Error()
				}
				add(conn.Since, "the database is away, being reconnected to: %s", s.Error)
				return
			}
		}
	}
	if !outage.IsZero() {
		s.Error = err.Error()
		add(outage, "the database does not answer: %s", s.Error)
	}
}

func (c *Core) headHealth(h *HeadHealth, now time.Time, add func(time.Time, string, ...any)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.At, h.Age = c.head.String(), max(0, now.Sub(c.head.Time()).Seconds())
	if h.Behind = len(c.received); h.Behind == 0 {
		return
	}
	since := c.received[0]
	if lag := now.Sub(since); lag > 0 {
		if h.Lag = lag.Seconds(); lag > healthLag {
			add(since, "head is %s behind, by %d commits", lag.Round(time.Second), h.Behind)
		}
	}
}

func (c *Core) loadHealth(h *Health, now time.Time, add func(time.Time, string, ...any)) {
	v := &c.vitals
	v.mu.Lock()
	defer v.mu.Unlock()
	h.Loads = v.loads
	if v.loads.Failed > 0 && now.Sub(v.loads.Last) < healthLoads && h.Storage.Error == "" {
		add(v.loads.Last, "reads fail: %s", v.loads.Error)
	}
}

func (c *Core) fileHealth(h *FileHealth, now time.Time, add func(time.Time, string, ...any)) {
	v := &c.vitals
	v.mu.Lock()
	list := append([]*HeadFile(nil), v.failed...)
	h.Total = v.nFailed
	v.mu.Unlock()
	keep := list[:0]
	for _, f := range list {
		e := f.Failure()
		found := c.file(f.Oid())
		if f.uses.Load() <= 0 && (now.Sub(e.Since) > healthFile || found != nil && found != f) {
			continue
		}
		keep = append(keep, f)
		if len(h.List) < maxFailedList {
			h.List = append(h.List, e.Error())
		}
	}
	if h.Failed = len(keep); h.Failed == 0 {
		return
	}
	first := keep[0].Failure()
	why := first.Error()
	if h.Failed > 1 {
		why = fmt.Sprintf("%d bigfiles have failed, one of them: %s", h.Failed, why)
	}
	add(first.Since, "%s", why)
}

func (c *Core) pinHealth(h *PinHealth, now time.Time, add func(time.Time, string, ...any)) {
	c.mu.Lock()
	links := make([]*Link, 0, len(c.links))
	for l := range c.links {
		links = append(links, l)
	}
	c.mu.Unlock()
	oldest := now
	for _, l := range links {
		n, since := l.owed()
		if n == 0 {
			continue
		}
		h.Clients++
		h.Owed += n
		if since.Before(oldest) {
			oldest = since
			h.Who = l.who()
		}
	}
	late := now.Sub(oldest)
	if h.Oldest = late.Seconds(); late > min(healthOwed, c.opts.PinTimeout/4) {
		add(oldest, "%d clients owe pins, %s for %s of %s", h.Clients, h.Who, late.Round(100*time.Millisecond), c.opts.PinTimeout)
	}
}

// owed returns how many pins the client has not acknowledged, and since when.
func (l *Link) owed() (n int, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.asked {
		if a.late {
			continue
		}
		if n++; n == 1 || a.sent.Before(since) {
			since = a.sent
		}
	}
	return n, since
}
