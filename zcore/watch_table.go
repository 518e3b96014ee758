package zcore

import (
	"slices"

	"wcfs/zcore/zodb"
)

// watchTable has the watches of one file in one domain.
type watchTable struct {
	ws      map[*clientWatch]struct{}
	minAt   zodb.Tid // no watch has a lower at; it may lag behind
	entered int      // how many watches were ever added
}

// show makes the watch known to readers, hide undoes it.
func (w *clientWatch) show() {
	w.f.mu.Lock()
	w.f.all[w] = struct{}{}
	w.f.mu.Unlock()
	if !w.hasBase {
		w.f.addWatch(w, w.at)
	} else {
		s := w.set()
		s.mu.Lock()
		s.watches[w] = struct{}{}
		s.mu.Unlock()
	}
	if w.ctx.Err() != nil { // removed meanwhile
		w.hide()
	}
}

func (w *clientWatch) hide() {
	w.f.mu.Lock()
	delete(w.f.all, w)
	w.f.mu.Unlock()
	if !w.hasBase {
		w.f.dropWatch(w)
		return
	}
	s := w.set()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, w)
}

func (f *HeadFile) addWatch(w *clientWatch, at zodb.Tid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.watches[w.l.dom]
	if t == nil {
		t = &watchTable{ws: map[*clientWatch]struct{}{}, minAt: at}
		f.watches[w.l.dom] = t
	}
	t.ws[w] = struct{}{}
	t.entered++
	t.minAt = min(t.minAt, at)
}

func (f *HeadFile) dropWatch(w *clientWatch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.watches[w.l.dom]
	if t == nil {
		return
	}
	delete(t.ws, w)
	if len(t.ws) == 0 {
		delete(f.watches, w.l.dom)
	}
}

// watchesBelow returns the watches of a domain whose at may be < rev.
func (f *HeadFile) watchesBelow(dom *Domain, rev zodb.Tid) []*clientWatch {
	f.mu.Lock()
	t := f.watches[dom]
	if t == nil || rev <= t.minAt {
		f.mu.Unlock()
		return nil
	}
	ws := make([]*clientWatch, 0, len(t.ws))
	for w := range t.ws {
		ws = append(ws, w)
	}
	entered := t.entered
	f.mu.Unlock()
	least := zodb.TidMax
	ws = slices.DeleteFunc(ws, func(w *clientWatch) bool {
		at := w.atNow()
		least = min(least, at)
		return at >= rev
	})
	f.mu.Lock()
	if t.entered == entered { // at of a watch only grows
		t.minAt = max(t.minAt, least)
	}
	f.mu.Unlock()
	return ws
}
