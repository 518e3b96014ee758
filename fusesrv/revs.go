package fusesrv

import (
	"container/list"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// revDir is a directory that holds one revision, @<tid> or base/<tid>, as the kernel knows it.
type revDir struct {
	parent uint64 // node id of the directory it is in; immutable
	name   string // immutable

	inodes int           // inodes in the table that are it or under it; guard: inodes.mu
	opens  int           // open files and directories under it; guard: inodes.mu
	place  *list.Element // in revs.idle, nil when it is not there; guard: inodes.mu
}

// revs keeps the kernel from holding every revision that was ever looked at: it drops names only when
// memory is short, and until then each costs it and us some kilobytes. It has no lock: all of it is
// guarded by that of the table of inodes.
type revs struct {
	max  int           // immutable
	wake chan struct{} // capacity 1: there may be too many idle ones; immutable
	idle *list.List    // revisions without open files, longest unused first
}

func newRevs(max int) *revs {
	return &revs{max: max, wake: make(chan struct{}, 1), idle: list.New()}
}

// touch puts d where it belongs: to the end of idle, or nowhere.
func (t *revs) touch(d *revDir) {
	if d == nil {
		return
	}
	if d.place != nil {
		t.idle.Remove(d.place)
		d.place = nil
	}
	if d.opens > 0 || d.inodes == 0 {
		return
	}
	d.place = t.idle.PushBack(d)
	if t.idle.Len() > t.max {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// surplus takes those out of idle that are too many.
func (t *revs) surplus() (surplus []*revDir) {
	for t.idle.Len() > t.max {
		d := t.idle.Remove(t.idle.Front()).(*revDir)
		d.place = nil
		surplus = append(surplus, d)
	}
	return surplus
}

// prune has the kernel drop the names of revisions that nobody uses; FORGETs follow from that.
func (s *Server) prune() {
	for {
		select {
		case <-s.fs.gate.shut:
			return
		case <-s.fs.inodes.revs.wake:
		}
		for _, d := range s.fs.inodes.surplusRevs() {
			if st := s.fuse.EntryNotify(d.parent, d.name); st != fuse.OK && st != fuse.ENOENT {
				s.log.Debug("name not dropped", "name", d.name, "errno", st)
			}
		}
	}
}
