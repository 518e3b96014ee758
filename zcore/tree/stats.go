package tree

import (
	"fmt"
	"strings"
)

// Stat is one line of .wcfs/stats.
type Stat struct {
	Name  string
	Value int64
}

// Stats are the counters, in the order of .wcfs/stats. It never blocks on pins or I/O.
func (fs *FS) Stats() []Stat {
	c := fs.core.Stats()
	list := []Stat{
		{"BigFile", c.BigFile},
		{"RevHead", fs.revHeads()},
		{"ZHeadLink", c.ZHeadLink},
		{"WatchLink", c.WatchLink},
		{"Watch", c.Watch},
		{"PinnedBlk", c.PinnedBlk},
		{"pin", c.Pin},
		{"pinkill", c.PinKill},
	}
	if fs.opts.MoreStats != nil {
		list = append(list, fs.opts.MoreStats()...)
	}
	return list
}

func (fs *FS) statsText() string {
	var b strings.Builder
	for _, s := range fs.Stats() {
		fmt.Fprintf(&b, "%s\t: %d\n", s.Name, s.Value)
	}
	return b.String()
}
