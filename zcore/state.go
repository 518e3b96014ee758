package zcore

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

// State tells who holds what. It is what .wcfs/state shows as JSON, what metrics, the page and `wcfs top` are made
// from; scripts may rely on the names. Durations are in seconds.
type State struct {
	Time    time.Time             `json:"time"`
	Health  Health                `json:"health"`
	Head    HeadState             `json:"head"`
	Clients []ClientState         `json:"clients"` // those that others wait for first; at most maxListed
	Files   []FileState           `json:"files"`   // those that changed last first; at most maxListed
	Fronts  map[string]FrontState `json:"fronts"`  // fuse, 9p
	Pins    PinState              `json:"pins"`
	Storage history.Stats         `json:"storage"`
	Lost    int64                 `json:"connections_lost"`
	Stats   Stats                 `json:"stats"`
}

// HeadState tells of commits.
type HeadState struct {
	At      string            `json:"at"`
	Start   string            `json:"start"`   // head when the server started
	Oldest  string            `json:"oldest"`  // watches may begin there
	Commits int64             `json:"commits"` // announced
	Changed int64             `json:"blocks_changed"`
	Lag     history.Durations `json:"lag"` // from when a commit was received until it was announced
	Age     history.Durations `json:"age"` // from the time of its tid until then
}

// PinState tells how fast clients acknowledge.
type PinState struct {
	Timeout float64           `json:"timeout_s"`
	Acks    history.Durations `json:"acks"`  // from when a pin was sent until it was acknowledged
	Waits   history.Durations `json:"waits"` // of reads for pins
}

// FrontState tells of what was read through a front.
type FrontState struct {
	Head   Traffic `json:"head"`
	Rev    Traffic `json:"rev"`  // under @<tid>
	Base   Traffic `json:"base"` // under base
	Errors int64   `json:"errors"`
}

// Traffic is what was read.
type Traffic struct {
	Reads int64 `json:"reads"`
	Bytes int64 `json:"bytes"`
}

// ClientState is a process on this host, or a guest, that has a watch link open.
type ClientState struct {
	Name     string       `json:"name"` // "pid N", or the name of the guest
	Pid      int          `json:"pid,omitempty"`
	UID      *uint32      `json:"uid,omitempty"`
	Command  string       `json:"command,omitempty"`
	Front    string       `json:"front"`
	Since    time.Time    `json:"since"`
	Links    int          `json:"links"`
	Requests int          `json:"requests"`   // watch requests under way
	Watches  int          `json:"watches"`    // all, also those not listed
	Pinned   int          `json:"pinned"`     // blocks
	Unread   int          `json:"unread"`     // bytes that it was sent and has not read
	Owed     int          `json:"owed"`       // pins that it has not acknowledged
	OwedFor  float64      `json:"owed_s"`     // the oldest of them
	Waiting  int          `json:"waiting"`    // reads that wait for it now
	Due      []PinDue     `json:"due"`        // pins it owes, oldest first; at most maxDue
	List     []WatchState `json:"watch_list"` // at most maxWatches
	Failed   bool         `json:"failed"`     // it is being dealt with
	owedAt   time.Time    // when the oldest pin was sent
}

// PinDue is a pin that was sent and not acknowledged.
type PinDue struct {
	Oid string  `json:"oid"`
	Blk Blk     `json:"blk"`
	Rev string  `json:"rev"` // a tid, or "head"
	For float64 `json:"for_s"`
}

// WatchState is one watch.
type WatchState struct {
	Oid    string `json:"oid"`
	At     string `json:"at"`
	Base   string `json:"base,omitempty"`
	Pinned int    `json:"pinned"`
}

// FileState is a bigfile that was looked up.
type FileState struct {
	Oid     string    `json:"oid"`
	Size    int64     `json:"size"`
	Blksize int64     `json:"blksize"`
	Growth  int64     `json:"growth"` // bytes since it was looked up
	Mtime   string    `json:"mtime"`  // tid of the last change
	Changed time.Time `json:"changed"`
	Tracked int       `json:"tracked"` // blocks that some client may have cached
	Reads   int64     `json:"reads"`
	Bytes   int64     `json:"bytes"`
	Commits int64     `json:"commits"`        // that changed tracked blocks or size
	Blocks  int64     `json:"blocks_changed"` // tracked ones
	Watches int       `json:"watches"`
	Open    int64     `json:"open"` // how many have it open
	Failed  string    `json:"failed,omitempty"`
}

const (
	maxListed  = 1000 // clients and files in State
	maxWatches = 32   // watches listed of a client
	maxDue     = 8    // pins due listed of a client
)

// Described is implemented by processes of which a front knows more than the number.
type Described interface {
	// Describe returns the user and the name of the command, as of when the link was opened.
	Describe() (uid uint32, command string)
}

// State never waits. It takes each lock for a moment only, and none of those that reads take more than once a file.
func (c *Core) State() State {
	now := time.Now()
	s := State{Time: now.UTC(), Health: c.Health(), Stats: c.Stats(), Storage: c.tail.Stats()}
	oldest, _ := c.tail.Bounds()
	s.Head = HeadState{
		At: s.Health.Head.At, Start: c.T0().String(), Oldest: oldest.String(), Commits: c.meter.commits.Load(), Changed: c.meter.changed.Load(),
		Lag: c.meter.lag.Read(), Age: c.meter.age.Read(),
	}
	s.Pins = PinState{c.opts.PinTimeout.Seconds(), c.meter.acks.Read(), c.meter.waits.Read()}
	s.Fronts = map[string]FrontState{"fuse": c.meter.fronts[0].state(), "9p": c.meter.fronts[1].state()}
	s.Clients = c.clientStates(now)
	s.Files = c.fileStates()
	if d, ok := c.stor.(zodb.Connector); ok {
		if conn, ok := d.Connectivity(); ok {
			s.Lost = conn.Lost
		}
	}
	return s
}

func (f *frontMeter) state() FrontState {
	return FrontState{f.head.state(), f.rev.state(), f.base.state(), f.errors.Load()}
}

func (t *traffic) state() Traffic { return Traffic{t.reads.Load(), t.bytes.Load()} }

// clientStates lists those who have links, by what others wait for.
func (c *Core) clientStates(now time.Time) []ClientState {
	c.mu.Lock()
	links := make([]*Link, 0, len(c.links))
	requests := make(map[*owner]int, len(c.owners))
	for l := range c.links {
		links = append(links, l)
		requests[l.owner] = l.owner.waiting
	}
	c.mu.Unlock()
	slices.SortFunc(links, func(a, b *Link) int { return cmp.Compare(a.id, b.id) })
	byOwner := map[*owner]*ClientState{}
	var all []*ClientState
	for _, l := range links {
		s := byOwner[l.owner]
		if s == nil {
			s = l.describe()
			s.Requests = requests[l.owner]
			byOwner[l.owner] = s
			all = append(all, s)
		}
		l.addState(s, now)
	}
	slices.SortStableFunc(all, func(a, b *ClientState) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.OwedFor, a.OwedFor), cmp.Compare(b.Pinned, a.Pinned))
	})
	out := make([]ClientState, 0, min(len(all), maxListed))
	for _, s := range all[:min(len(all), maxListed)] {
		slices.SortFunc(s.Due, func(a, b PinDue) int { return cmp.Compare(b.For, a.For) })
		s.Due = s.Due[:min(len(s.Due), maxDue)]
		out = append(out, *s)
	}
	return out
}

// describe says whose link it is.
func (l *Link) describe() *ClientState {
	s := &ClientState{Name: l.who(), Front: "9p", Since: l.since.UTC(), Due: []PinDue{}, List: []WatchState{}}
	if l.dom.local {
		s.Front = "fuse"
	}
	if l.proc != nil {
		s.Pid = l.proc.Pid()
		if d, ok := l.proc.(Described); ok {
			uid, command := d.Describe()
			s.UID, s.Command = &uid, command
		}
	}
	return s
}

// who names the client for people.
func (l *Link) who() string {
	if l.proc != nil {
		return fmt.Sprintf("pid %d", l.proc.Pid())
	}
	return l.dom.Name()
}

// logName is who the client is, for a line of the log.
func (l *Link) logName() []any {
	if l.proc == nil {
		return []any{"client", l.dom.Name()}
	}
	if d, ok := l.proc.(Described); ok {
		uid, command := d.Describe()
		return []any{"pid", l.proc.Pid(), "uid", uid, "command", command}
	}
	return []any{"pid", l.proc.Pid()}
}

// debug logs what a developer of clients wants to see.
func (l *Link) debug(msg string, args ...any) {
	if l.c.log.Enabled(l.ctx, slog.LevelDebug) {
		l.c.log.Debug(msg, append(append([]any{"link", l.id}, l.logName()...), args...)...)
	}
}

// addState adds what one link has to the state of its client.
func (l *Link) addState(s *ClientState, now time.Time) {
	owed, since := l.owed()
	s.Links++
	s.Owed += owed
	if owed > 0 && (s.owedAt.IsZero() || since.Before(s.owedAt)) {
		s.owedAt, s.OwedFor = since, max(0, now.Sub(since).Seconds())
	}
	l.mu.Lock()
	s.Unread += len(l.out)
	for _, a := range l.asked {
		if !a.late && len(s.Due) < 4*maxDue {
			_, rev, _ := strings.Cut(a.pin.String(), "@")
			s.Due = append(s.Due, PinDue{a.pin.Oid.String(), a.pin.Blk, rev, max(0, now.Sub(a.sent).Seconds())})
		}
	}
	l.mu.Unlock()
	select {
	case <-l.killed:
		s.Failed = true
	default:
	}
	for _, w := range l.watches() {
		s.Watches++
		ws := w.state(owed > 0, &s.Waiting)
		s.Pinned += ws.Pinned
		if len(s.List) < maxWatches {
			s.List = append(s.List, ws)
		}
	}
}

// state tells of one watch. Where the client owes pins the reads that wait are counted too.
func (w *clientWatch) state(owes bool, waiting *int) WatchState {
	s := WatchState{Oid: w.f.Oid().String()}
	if w.hasBase {
		s.Base = w.base.String()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.At, s.Pinned = w.at.String(), len(w.pins)
	if owes {
		for _, p := range w.pins {
			for _, m := range p.queue {
				*waiting += int(m.wait.Load())
			}
		}
	}
	return s
}

// fileStates lists the files known, those that changed last first.
func (c *Core) fileStates() []FileState {
	c.mu.Lock()
	view := c.view
	files := make([]*HeadFile, 0, len(c.files))
	for _, f := range c.files {
		files = append(files, f)
	}
	c.mu.Unlock()
	out := make([]FileState, 0, len(files))
	for _, f := range files {
		size, mtime := c.tail.Attr(f.h, view)
		s := FileState{
			Oid: f.Oid().String(), Size: size, Blksize: f.h.Blksize, Growth: size - f.began, Mtime: mtime.String(), Changed: mtime.Time(),
			Reads: f.nReads.Load(), Bytes: f.bytes.Load(), Commits: f.commits.Load(), Blocks: f.changed.Load(), Open: f.uses.Load(),
			Tracked: c.tail.TrackedOf(f.h),
		}
		if e := f.Failure(); e != nil {
			s.Failed = e.Error()
		}
		f.mu.Lock()
		s.Watches = len(f.all)
		f.mu.Unlock()
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b FileState) int {
		return cmp.Or(strings.Compare(b.Mtime, a.Mtime), strings.Compare(a.Oid, b.Oid))
	})
	return out[:min(len(out), maxListed)]
}

// TrackedIn counts the tracked blocks of a file in n equal parts of [lo, hi); nil where the file is not known.
func (c *Core) TrackedIn(oid zodb.Oid, lo, hi Blk, n int) []int {
	f := c.file(oid)
	if f == nil || hi <= lo || n <= 0 {
		return nil
	}
	return c.tail.TrackedIn(f.h, lo, hi, n)
}

// Watches lists where the watches of a file stand, at most maxListed of them.
func (c *Core) Watches(oid zodb.Oid) []FileWatch {
	f := c.file(oid)
	if f == nil {
		return nil
	}
	f.mu.Lock()
	all := make([]*clientWatch, 0, len(f.all))
	for w := range f.all {
		if len(all) < maxListed {
			all = append(all, w)
		}
	}
	f.mu.Unlock()
	out := make([]FileWatch, 0, len(all))
	for _, w := range all {
		out = append(out, FileWatch{Client: w.l.who(), At: w.atNow().String()})
	}
	slices.SortFunc(out, func(a, b FileWatch) int {
		return cmp.Or(strings.Compare(b.At, a.At), strings.Compare(a.Client, b.Client))
	})
	return out
}

// FileWatch is a watch of a file.
type FileWatch struct {
	Client string `json:"client"`
	At     string `json:"at"`
}
