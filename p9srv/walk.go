package p9srv

import (
	"errors"
	"strings"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore/tree"
)

// checkAttach checks the aname, and lets the first attach of the connection decide its domain.
func (r *request) checkAttach() error {
	m, c := &r.msg, r.s.conn
	m.newfid = m.fid
	names, err := attachNames(m.aname)
	if err != nil {
		return err
	}
	m.names = names
	if !c.peer.allows(m.aname) {
		c.srv.log.warn("9p: attach refused: --9p-map does not allow it", "peer", c.peer.String(), "aname", m.aname)
		return linux.EACCES
	}
	c.joinDomain(m.uname)
	return nil
}

// attachNames turns an aname into the names to walk: the root, head or @<tid>.
func attachNames(aname string) ([]string, error) {
	name := strings.Trim(aname, "/")
	if name == "" {
		return nil, nil
	}
	if name != "head" && !isSnapshot(name) {
		return nil, &refusedName{name, errNoAname}
	}
	return []string{name}, nil
}

// isSnapshot tells names of the form @<tid>.
func isSnapshot(name string) bool {
	return len(name) == 17 && name[0] == '@' && strings.Trim(name[1:], "0123456789abcdef") == ""
}

func admitAttachLocked(s *session, r *request) error { return s.reserveFidLocked(r.msg.fid) }

// attach answers Tattach.
func (r *request) attach() error {
	at := newNodeRef(r.s.srv.opts.Tree.Root())
	for _, name := range r.msg.names {
		next, err := at.step(r.ctx, name)
		at.drop()
		if err != nil {
			return err
		}
		at = next
	}
	if at.Kind() != tree.Dir {
		at.drop()
		return tree.ErrNotDir
	}
	r.newFile = newFile(r.s, at)
	r.reply = r.frame(tAttach + 1).qid(at.qid())
	return nil
}

// admitWalkLocked reserves the fid a walk leads to.
func admitWalkLocked(s *session, r *request) error {
	m, f := &r.msg, r.file
	if m.newfid == m.fid {
		if f.state != walked || f.users > 0 {
			return linux.EBUSY
		}
		f.state, r.old = moving, f
	} else if err := s.reserveFidLocked(m.newfid); err != nil {
		return err
	}
	r.from, r.file = f.node.share(), nil
	return nil
}

// walk answers Twalk. As 9P says, a name that is not there ends the walk: when it is not the first, the reply has
// what there was before it, and newfid stays as it is.
func (r *request) walk() error {
	at := r.from.share()
	reply := r.frame(tWalk + 1).u16(0)
	for i, name := range r.msg.names {
		next, err := at.step(r.ctx, name)
		at.drop()
		if err != nil {
			if i == 0 || !ofName(err) {
				return err
			}
			r.reply = reply
			return nil
		}
		at = next
		reply = reply.qid(at.qid())
		reply[headerLen]++
	}
	r.newFile = newFile(r.s, at)
	r.reply = reply
	return nil
}

// ofName tells errors that say that a name is not there. Linux makes ENOENT of a walk that ends early, which
// would be wrong for the others: the database is away, or the walk was flushed.
func ofName(err error) bool {
	return errors.Is(err, tree.ErrNotExist) || errors.Is(err, tree.ErrNotDir) || errors.Is(err, tree.ErrInvalid)
}

// settleWalkLocked is for Tattach too.
func settleWalkLocked(s *session, r *request, _ bool) {
	switch {
	case r.newFile != nil:
		s.fids[r.msg.newfid] = r.newFile
	case r.old != nil:
		r.old.state = walked
	default:
		s.dropFidLocked(r.msg.newfid)
	}
}
