package p9srv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/hugelgupf/p9/p9"
)

// msgType is the type of a 9P message.
type msgType uint8

// The messages of 9P2000.L; a reply has the number of its request plus one.
const (
	tLerror      msgType = 6
	rLerror      msgType = 7
	tStatfs      msgType = 8
	tLopen       msgType = 12
	tLcreate     msgType = 14
	tSymlink     msgType = 16
	tMknod       msgType = 18
	tRename      msgType = 20
	tReadlink    msgType = 22
	tGetattr     msgType = 24
	tSetattr     msgType = 26
	tXattrwalk   msgType = 30
	tXattrcreate msgType = 32
	tReaddir     msgType = 40
	tFsync       msgType = 50
	tLock        msgType = 52
	tGetlock     msgType = 54
	tLink        msgType = 70
	tMkdir       msgType = 72
	tRenameat    msgType = 74
	tUnlinkat    msgType = 76
	tVersion     msgType = 100
	tAuth        msgType = 102
	tAttach      msgType = 104
	tFlush       msgType = 108
	tWalk        msgType = 110
	tRead        msgType = 116
	tWrite       msgType = 118
	tClunk       msgType = 120
	tRemove      msgType = 122
)

const (
	headerLen = 7          // size[4] type[1] tag[2]
	direntLen = 24         // an entry of Rreaddir without its name
	maxCount  = 64<<10 - 1 // most bytes of entries in one Rreaddir
	ioHeader  = 24         // what 9P takes off msize for the payload of a read or write (IOHDRSZ)
	writeHead = 7 + 16     // header and fixed part of Twrite
	maxBody   = 8 << 10    // longest message but Twrite that is looked at: 16 names and more fit
	maxWrite  = 64 << 10   // most that one Twrite takes: the rest is for the client to send again
	maxNames  = 16         // names in a Twalk
	maxName   = 255        // bytes in a name
	noFid     = ^uint32(0)
	noTag     = ^uint16(0)
	minMsize  = 4096
	capMsize  = 1 << 20 // also the most that Linux asks for
	version9P = "9P2000.L"
	goVersion = "9P2000.L.Google." // what the library's client asks for
)

// Bits of a Tsetattr: the attributes that it sets.
const (
	setMode = 1 << iota
	setUID
	setGID
	setSize
)

// Errors in what a client sent.
var (
	errShort    = errors.New("message ends early or has bytes after its end")
	errBadName  = errors.New("name is empty, '.', '..', or has '/' or NUL in it")
	errLongName = errors.New("name is longer than 255 bytes")
	errNoAname  = errors.New("attach to /, /head or /@TID")
	errNames    = errors.New("more than 16 names in one walk")
	errTooLong  = errors.New("message is longer than any of its type")
)

// header is the start of each message.
type header struct {
	size uint32 // of the whole message
	typ  msgType
	tag  uint16
}

func parseHeader(b *[headerLen]byte) header {
	return header{
		size: binary.LittleEndian.Uint32(b[0:]),
		typ:  msgType(b[4]),
		tag:  binary.LittleEndian.Uint16(b[5:]),
	}
}

// message is a request as it came; only the fields of its type are set.
type message struct {
	header
	fid, newfid uint32
	oldtag      uint16
	names       []string
	offset      uint64 // the size, of Tsetattr
	count       uint32
	flags       uint32 // what is set, of Tsetattr
	data        []byte // of Twrite
	uname       string
	aname       string
	msize       uint32
	version     string
}

// parseBody reads what follows the header of a message that gets past the refusals.
func (m *message) parseBody(body []byte) error {
	c := cursor{b: body}
	switch m.typ {
	case tVersion:
		m.msize, m.version = c.u32(), c.str()
	case tAttach:
		m.fid = c.u32()
		c.u32() // afid
		m.uname, m.aname = c.str(), c.str()
		c.u32() // n_uname
	case tFlush:
		m.oldtag = c.u16()
	case tWalk:
		m.fid, m.newfid = c.u32(), c.u32()
		if err := m.parseNames(&c); err != nil {
			return err
		}
	case tLopen:
		m.fid, m.flags = c.u32(), c.u32()
	case tGetattr:
		m.fid = c.u32()
		c.u64()
	case tSetattr:
		m.fid, m.flags = c.u32(), c.u32()
		c.take(3 * 4) // mode, uid, gid
		m.offset = c.u64()
		c.take(4 * 8) // times
	case tRead, tReaddir:
		m.fid, m.offset, m.count = c.u32(), c.u64(), c.u32()
	case tWrite:
		m.fid, m.offset, m.count = c.u32(), c.u64(), c.u32()
		m.data, c.b = c.b, nil // without what is beyond maxWrite
		c.bad = c.bad || m.size < writeHead || m.count != m.size-writeHead
	case tFsync:
		m.fid = c.u32()
		if len(c.b) == 4 { // datasync: Linux sends it, others do not
			c.u32()
		}
	case tClunk, tReadlink, tRemove, tStatfs:
		m.fid = c.u32()
	default:
		return fmt.Errorf("message type %d has no body known here", m.typ)
	}
	if c.bad || len(c.b) != 0 {
		return errShort
	}
	return nil
}

func (m *message) parseNames(c *cursor) error {
	n := c.u16()
	if n > maxNames {
		return errNames
	}
	m.names = make([]string, 0, n)
	for range n {
		name := c.str()
		if c.bad {
			return errShort
		}
		if err := checkName(name); err != nil {
			return &refusedName{name, err}
		}
		m.names = append(m.names, name)
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return errBadName
	case len(name) > maxName:
		return errLongName
	}
	return nil
}

// cursor takes little-endian fields off a message; past the end it turns bad and yields zeros.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.bad, c.b = true, nil
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u16() uint16 {
	if p := c.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (c *cursor) str() string { return string(c.take(int(c.u16()))) }

// frame is a message being built.
type frame []byte

func newFrame(typ msgType, tag uint16) frame {
	f := make(frame, 4, 32)
	return append(f, byte(typ), byte(tag), byte(tag>>8))
}

func (f frame) u8(v uint8) frame   { return append(f, v) }
func (f frame) u16(v uint16) frame { return binary.LittleEndian.AppendUint16(f, v) }
func (f frame) u32(v uint32) frame { return binary.LittleEndian.AppendUint32(f, v) }
func (f frame) u64(v uint64) frame { return binary.LittleEndian.AppendUint64(f, v) }
func (f frame) str(s string) frame { return append(f.u16(uint16(len(s))), s...) }

func (f frame) qid(q p9.QID) frame { return f.u8(uint8(q.Type)).u32(q.Version).u64(q.Path) }

func (f frame) attr(a *p9.Attr) frame {
	f = f.u32(uint32(a.Mode)).u32(uint32(a.UID)).u32(uint32(a.GID)).u64(uint64(a.NLink)).u64(uint64(a.RDev))
	f = f.u64(a.Size).u64(a.BlockSize).u64(a.Blocks)
	f = f.u64(a.ATimeSeconds).u64(a.ATimeNanoSeconds).u64(a.MTimeSeconds).u64(a.MTimeNanoSeconds)
	f = f.u64(a.CTimeSeconds).u64(a.CTimeNanoSeconds).u64(a.BTimeSeconds).u64(a.BTimeNanoSeconds)
	return f.u64(a.Gen).u64(a.DataVersion)
}

func (f frame) statfs(s *p9.FSStat) frame {
	f = f.u32(s.Type).u32(s.BlockSize).u64(s.Blocks).u64(s.BlocksFree).u64(s.BlocksAvailable)
	return f.u64(s.Files).u64(s.FilesFree).u64(s.FSID).u32(s.NameLength)
}

func (f frame) dirent(d p9.Dirent) frame {
	return f.qid(d.QID).u64(d.Offset).u8(uint8(d.Type)).str(d.Name)
}

// done fills in the size, of which extra bytes follow the frame on the wire.
func (f frame) done(extra int) frame {
	binary.LittleEndian.PutUint32(f, uint32(len(f)+extra))
	return f
}
