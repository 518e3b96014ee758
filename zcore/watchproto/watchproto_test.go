package watchproto

import (
	"strings"
	"testing"
)

func TestFrame(t *testing.T) {
	for _, c := range []struct {
		line   string
		stream uint64
		msg    string
		err    string
	}{
		{"1 watch x\n", 1, "watch x", ""},
		{"18446744073709551615 bye", 18446744073709551615, "bye", ""},
		{"2 ack\n", 2, "ack", ""},
		{"3 \n", 3, "", ""},
		{"zzz hello\n", 0, "", `invalid frame: "zzz hello\n" (invalid stream)`},
		{"01 bye\n", 0, "", `invalid frame: "01 bye\n" (invalid stream)`},
		{"+1 bye\n", 0, "", `invalid frame: "+1 bye\n" (invalid stream)`},
		{"18446744073709551616 bye\n", 0, "", `invalid frame: "18446744073709551616 bye\n" (invalid stream)`},
		{"bla\n", 0, "", `invalid frame: "bla\n"`},
		{"\n", 0, "", `invalid frame: "\n"`},
	} {
		stream, msg, err := Frame(c.line)
		if text(err) != c.err || stream != c.stream || msg != c.msg {
			t.Errorf("%q: %d %q %v", c.line, stream, msg, err)
		}
	}
}

func TestParseRequest(t *testing.T) {
	const oid, tid = "0000000000000002", "03e5a3342bc5ab22"
	for msg, want := range map[string]string{
		"watch " + oid + " @" + tid:                   "",
		"watch " + oid + " -":                         "",
		"watch " + oid + " @" + tid + " base @" + tid: "",
		"bla bla":                  `bad watch: not a watch request: "bla bla"`,
		"watch":                    `bad watch: not a watch request: "watch"`,
		"watch " + oid:             "bad watch: expected 2 arguments, got 1",
		"watch a b c":              "bad watch: expected 2 arguments, got 3",
		"watch a b c d":            "bad watch: expected 2 arguments, got 4",
		"watch 2 @" + tid:          "bad watch: invalid oid",
		"watch " + oid + " " + tid: "bad watch: invalid at",
		"watch " + oid + " @":      "bad watch: invalid at",
		"watch " + oid + " @" + strings.ToUpper(tid): "bad watch: invalid at",
		"watch " + oid + " - base @" + tid:           "bad watch: invalid at",
		"watch " + oid + " @" + tid + " base x":      "bad watch: invalid base",
	} {
		r, err := ParseRequest(msg)
		if text(err) != want {
			t.Errorf("%q: %v, want %s", msg, err, want)
		}
		if err == nil && r.String() != msg {
			t.Errorf("%q: came back as %q", msg, r)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"1 watch 0000000000000002 @03e5a3342bc5ab22\n", "2 pin 0000000000000002 #5 @head\n", "1 bye\n",
		"0 error: x\n", "2 pin 0000000000000002 #-1 @head\n", "1 watch 0000000000000002 - \n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		stream, msg, err := Frame(line)
		if err != nil {
			return
		}
		if got := Line(stream, msg); strings.TrimSuffix(got, "\n") != strings.TrimSuffix(line, "\n") {
			t.Fatalf("%q: came back as %q", line, got)
		}
		if r, err := ParseRequest(msg); err == nil && r.String() != msg {
			t.Fatalf("%q: came back as %q", msg, r)
		}
		if p, err := ParsePin(msg); err == nil {
			if q, err := ParsePin(p.String()); err != nil || q != p {
				t.Fatalf("%q: came back as %q", msg, q)
			}
		}
	})
}

// An error of a database, which may have several lines, is one line of the protocol.
func TestLineIsOne(t *testing.T) {
	if got, want := Line(0, "error: Traceback\n  in f:\nboom"), "0 error: Traceback in f: boom\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
