package p9srv

import (
	"encoding/binary"
	"sort"
	"sync"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"wcfs/zcore/tree"
)

// listings bounds how many directory listings a session keeps; an older one is made again.
type listings struct {
	mu   sync.Mutex
	keep [8]*file // ring of those that have one; guarded by mu
	next int      // guarded by mu
}

// get returns the listing of f, if it is still kept.
func (l *listings) get(f *file) []tree.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return f.listing
}

func (l *listings) put(f *file, entries []tree.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.listing == nil {
		if old := l.keep[l.next]; old != nil {
			old.listing = nil
		}
		l.keep[l.next] = f
		l.next = (l.next + 1) % len(l.keep)
	}
	f.listing = entries
}

func (l *listings) forget(f *file) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, k := range l.keep {
		if k == f {
			l.keep[i] = nil
		}
	}
	f.listing = nil
}

// readdir answers Treaddir: entries from the offset on, as many as fit, in order of name. Offset 0 makes a new
// listing, of "." and ".." too.
func (r *request) readdir() error {
	f, m := r.file, &r.msg
	list := r.s.dirs.get(f)
	if list == nil || m.offset == 0 {
		var err error
		if list, err = f.node.ReadDir(r.ctx); err != nil {
			return err
		}
		sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
		self := f.node.ID()
		list = append([]tree.Entry{{Name: ".", Ino: self, Dir: true}, {Name: "..", Ino: self, Dir: true}}, list...)
		r.s.dirs.put(f, list)
	}
	const head, typical = headerLen + 4, direntLen + 16
	room := min(int(m.count), typical*int(uint64(len(list))-min(m.offset, uint64(len(list)))))
	reply := r.longFrame(tReaddir+1, head+room).u32(0)
	for i := m.offset; i < uint64(len(list)) && len(reply)-head+direntLen+len(list[i].Name) <= int(m.count); i++ {
		reply = reply.dirent(dirent(list[i], i+1))
	}
	n := len(reply) - head
	if n == 0 && m.offset < uint64(len(list)) {
		return linux.EINVAL // not even one fits; 0 bytes would mean the end
	}
	binary.LittleEndian.PutUint32(reply[headerLen:], uint32(n))
	r.reply = reply
	return nil
}

func dirent(e tree.Entry, next uint64) p9.Dirent {
	const dtDir, dtReg, dtLink = 4, 8, 10 // as in struct dirent: Linux takes them from here
	d := p9.Dirent{QID: p9.QID{Path: e.Ino}, Offset: next, Type: dtReg, Name: e.Name}
	if e.Dir {
		d.QID.Type, d.Type = p9.TypeDir, dtDir
	}
	if e.Link {
		d.QID.Type, d.Type = p9.TypeSymlink, dtLink
	}
	return d
}
