package p9srv

import (
	"fmt"
	"strings"

	"github.com/hugelgupf/p9/linux"
)

// version begins a session, the old one ends first.
func (c *conn) version(r *request, body []byte, bodyErr error) error {
	m := &r.msg
	if bodyErr == nil {
		bodyErr = m.parseBody(body)
	}
	if bodyErr != nil {
		r.fail(bodyErr)
		c.write(r.reply)
		return nil
	}
	if c.s != nil {
		c.s.end()
		c.s = nil
	}
	toGo := strings.HasPrefix(m.version, goVersion)
	switch {
	case m.version != version9P && !toGo:
		c.tell("9p: Tversion refused", fmt.Errorf("version is %.40q, and only %s is known", m.version, version9P))
		r.reply = r.frame(tVersion + 1).u32(min(m.msize, capMsize)).str("unknown")
	case m.msize < minMsize:
		c.tell("9p: Tversion refused", fmt.Errorf("msize is %d, and must be at least %d", m.msize, minMsize))
		r.fail(linux.EMSGSIZE)
	default:
		c.s = c.newSession(agreedMsize(m.msize, uint32(c.srv.opts.MaxMsize), toGo))
		r.reply = r.frame(tVersion + 1).u32(c.s.msize).str(version9P)
	}
	c.write(r.reply)
	return nil
}

// agreedMsize leaves room for whole pages in a reply, so that aligned reads are one message each. The
// library's own client is told what it asked for: it does not look at the answer.
func agreedMsize(asked, most uint32, exact bool) uint32 {
	n := min(asked, most)
	if exact || n < 4096+ioHeader {
		return n
	}
	return (n-ioHeader)/4096*4096 + ioHeader
}
