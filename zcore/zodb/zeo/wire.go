package zeo

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"wcfs/zcore/zodb"
)

// Values as both encodings carry them: nil, bool, int64, float64, string, []byte (shares memory with
// the frame), []any for tuples and lists, dict, and opaque for what is none of our business.
type (
	dict   map[string]any
	opaque struct{}
)

// message is one call, event or reply.
type message struct {
	id   int64
	flag int64 // of a reply: not 0 for an exception; of the rest: not 0 when no reply is wanted
	name string
	args any
}

// wire is an encoding of messages.
type wire interface {
	// encode appends a call to b.
	encode(b []byte, id int64, method string, args []any) []byte

	// decode reads a message, which it does not trust. If the arguments fail to decode, the rest is returned
	// beside the error: it names the question that is answered.
	decode(frame []byte) (message, error)
}

// Bounds of one message. maxValues is what lists of oids need: two million objects
// changed at once; it keeps what a hostile message can make to some 200 MB.
const (
	maxValues = 1 << 21
	maxDepth  = 64
	maxHello  = 64 // bytes of the first frame, which names the protocol
)

const replyName = ".reply"

// asMessage takes the four parts of a message apart.
func asMessage(v any) (message, error) {
	t, ok := v.([]any)
	if !ok || len(t) != 4 {
		return message{}, fmt.Errorf("message is not of four parts but %s", short(v))
	}
	var m message
	if m.id, ok = t[0].(int64); !ok {
		return m, fmt.Errorf("message has the id %s", short(t[0]))
	}
	switch f := t[1].(type) {
	case int64:
		m.flag = f
	case bool:
		if f {
			m.flag = 1
		}
	default:
		return m, fmt.Errorf("message has the flag %s", short(t[1]))
	}
	if m.name, ok = asText(t[2]); !ok {
		return m, fmt.Errorf("message has the name %s", short(t[2]))
	}
	m.args = t[3]
	return m, nil
}

// exception reads what a reply with the flag set carries: (class, arguments).
func exception(args any) error {
	t, ok := args.([]any)
	if !ok || len(t) != 2 {
		return &serverError{class: "an exception", text: short(args)}
	}
	class, ok := asText(t[0])
	if !ok {
		return &serverError{class: "an exception", text: short(t[0])}
	}
	if l, ok := t[1].([]any); ok && len(l) == 1 {
		e := &serverError{class: class, text: short(l[0])}
		if b, ok := l[0].([]byte); ok && len(b) == 8 {
			e.oid, e.text = b, fmt.Sprintf("%x", b)
		}
		return e
	}
	e := &serverError{class: class, text: short(t[1])}
	if l, ok := t[1].([]any); ok && len(l) > 1 {
		n, _ := l[0].(int64)
		e.errno, e.text = syscall.Errno(n), fmt.Sprintf("%s, %s", short(l[0]), short(l[1]))
	}
	return e
}

// revision is what a history tells of a revision.
type revision struct {
	tid  zodb.Tid
	size int64 // bytes of data; 0 as well for a deletion, and for an undo, which has them elsewhere
}

// asHistory reads a reply to history: revisions, newest first, at most n.
func asHistory(v any, n int) ([]revision, error) {
	list, ok := v.([]any)
	if !ok || len(list) > n {
		return nil, badReply("history", v)
	}
	revs := make([]revision, len(list))
	for i, x := range list {
		d, _ := x.(dict)
		r := &revs[i]
		r.size, _ = d["size"].(int64)
		if r.tid, ok = asTid(d["tid"]); !ok || i > 0 && r.tid >= revs[i-1].tid {
			return nil, badReply("history", x)
		}
	}
	return revs, nil
}

// frameStep is how much memory a frame is given before its bytes have come.
const frameStep = 8 << 20

// tooLong is a message that is not read.
type tooLong struct{ n, limit int }

func (e *tooLong) Error() string {
	return fmt.Sprintf("server announces a message of %d bytes, more than the %d allowed", e.n, e.limit)
}

// readFrame reads one length-prefixed frame of at most limit bytes. Of a longer one it returns the beginning, and *tooLong.
func readFrame(r *bufio.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > limit {
		begin, _ := r.Peek(min(n, 64))
		return begin, &tooLong{n, limit}
	}
	frame := make([]byte, min(n, frameStep))
	for have := 0; ; {
		if _, err := io.ReadFull(r, frame[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if have = len(frame); have == n {
			return frame, nil
		}
		more := make([]byte, min(n, 2*have))
		copy(more, frame)
		frame = more
	}
}

// wireFor picks the encoding that the server announced in its first frame.
func wireFor(hello []byte) (wire, error) {
	switch string(hello) {
	case "Z5":
		return pickleWire{maxValues}, nil
	case "M5":
		return msgpackWire{maxValues}, nil
	}
	if len(hello) > 1 && strings.IndexByte("ZM", hello[0]) >= 0 {
		return nil, fmt.Errorf("server speaks ZEO protocol %q, of another version than 5: wcfs needs a ZEO 5 or 6 server", hello)
	}
	return nil, fmt.Errorf("server is not a ZEO server: it greets with %q", hello)
}
