// Package watchproto is the language of head/watch: lines to and from messages. It holds no state and does
// no I/O; what the messages mean is zcore's.
//
// A line is `<stream> <message>\n`, stream a decimal number without leading zeros. Clients ask on odd
// streams, the server on even ones, stream 0 carries control messages of the server.
package watchproto

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// MaxLine bounds the length of a line that is taken from a peer, in bytes.
const MaxLine = 4096

// Frame splits a line, given with or without its '\n', into stream and message. Errors are in the
// words that clients know: `invalid frame: "..."`.
func Frame(line string) (stream uint64, msg string, err error) {
	num, msg, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if !ok {
		return 0, "", fmt.Errorf("invalid frame: %q", line)
	}
	stream, err = strconv.ParseUint(num, 10, 64)
	if err != nil || strconv.FormatUint(stream, 10) != num {
		return 0, "", fmt.Errorf("invalid frame: %q (invalid stream)", line)
	}
	return stream, msg, nil
}

// Line joins what Frame splits. Errors of databases may have several lines: they become one here.
func Line(stream uint64, msg string) string {
	if strings.Contains(msg, "\n") {
		msg = strings.Join(strings.Fields(msg), " ")
	}
	return strconv.FormatUint(stream, 10) + " " + msg + "\n"
}

// Request is `watch <oid> @<at>`, `watch <oid> -` or `watch <oid> @<at> base @<base>`.
type Request struct {
	Oid  zodb.Oid
	At   zodb.Tid
	Stop bool // `-`: stop watching; At is not set
	// Base is what the client maps instead of head, when HasBase.
	Base    zodb.Tid
	HasBase bool
}

// ParseRequest parses a client's message. Errors are in the words that clients know: `bad watch: ...`.
func ParseRequest(msg string) (Request, error) {
	r, err := parseRequest(msg)
	if err != nil {
		return Request{}, fmt.Errorf("bad watch: %w", err)
	}
	return r, nil
}

func parseRequest(msg string) (r Request, err error) {
	rest, ok := strings.CutPrefix(msg, "watch ")
	if !ok {
		return r, fmt.Errorf("not a watch request: %q", msg)
	}
	args := strings.Split(rest, " ")
	if len(args) != 2 && (len(args) != 4 || args[2] != "base") {
		return r, fmt.Errorf("expected 2 arguments, got %d", len(args))
	}
	if r.Oid, err = zodb.ParseOid(args[0]); err != nil {
		return r, errors.New("invalid oid")
	}
	if args[1] == "-" && len(args) == 2 {
		r.Stop = true
		return r, nil
	}
	if r.At, err = atTid(args[1]); err != nil {
		return r, errors.New("invalid at")
	}
	if len(args) == 4 {
		r.HasBase = true
		if r.Base, err = atTid(args[3]); err != nil {
			return r, errors.New("invalid base")
		}
	}
	return r, nil
}

// String is the message that ParseRequest parses.
func (r Request) String() string {
	switch {
	case r.Stop:
		return fmt.Sprintf("watch %s -", r.Oid)
	case r.HasBase:
		return fmt.Sprintf("watch %s @%s base @%s", r.Oid, r.At, r.Base)
	}
	return fmt.Sprintf("watch %s @%s", r.Oid, r.At)
}

// Pin is `pin <oid> #<blk> @<rev>`, or `@head`.
type Pin struct {
	Oid  zodb.Oid
	Blk  zdata.Blk
	Rev  zodb.Tid
	Head bool // back to the head file; Rev is not set
}

// String is the message that ParsePin parses.
func (p Pin) String() string { return fmt.Sprintf("pin %s #%d @%s", p.Oid, p.Blk, p.rev()) }

func (p Pin) rev() string {
	if p.Head {
		return "head"
	}
	return p.Rev.String()
}

// ParsePin parses a server's request, for clients.
func ParsePin(msg string) (p Pin, err error) {
	args := strings.Split(msg, " ")
	bad := fmt.Errorf("bad pin: %q", msg)
	if len(args) != 4 || args[0] != "pin" || !strings.HasPrefix(args[2], "#") {
		return Pin{}, bad
	}
	if p.Oid, err = zodb.ParseOid(args[1]); err != nil {
		return Pin{}, bad
	}
	blk, err := strconv.ParseInt(args[2][1:], 10, 64)
	if err != nil || blk < 0 {
		return Pin{}, bad
	}
	p.Blk = zdata.Blk(blk)
	if args[3] == "@head" {
		p.Head = true
		return p, nil
	}
	if p.Rev, err = atTid(args[3]); err != nil {
		return Pin{}, bad
	}
	return p, nil
}

func atTid(s string) (zodb.Tid, error) {
	hex, ok := strings.CutPrefix(s, "@")
	if !ok {
		return 0, errors.New("no @")
	}
	return zodb.ParseTid(hex)
}
