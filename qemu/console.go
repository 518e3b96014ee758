package qemu

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"sync"
)

const (
	tailSize  = 64 << 10 // bytes of the console that are kept
	tailLines = 25       // lines of it that errors show
	panicMark = "Kernel panic - not syncing"
)

// tail keeps the end of what is written to it, and recognises a kernel's panic.
type tail struct {
	also io.Writer // gets every line, cleaned; may be nil; fixed

	mu    sync.Mutex
	buf   []byte // guarded by mu
	panic string // guarded by mu; first line that tells of a panic
	line  []byte // guarded by mu; the unfinished last line
}

func (t *tail) Write(p []byte) (int, error) {
	var lines strings.Builder
	t.mu.Lock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailSize {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-tailSize:]...)
	}
	for _, c := range p {
		if c != '\n' {
			if len(t.line) < 1024 {
				t.line = append(t.line, c)
			}
			continue
		}
		if t.also != nil {
			lines.WriteString(clean(t.line) + "\n")
		}
		if t.panic == "" && bytes.Contains(t.line, []byte(panicMark)) {
			t.panic = string(bytes.TrimSpace(t.line))
		}
		t.line = t.line[:0]
	}
	t.mu.Unlock()
	if lines.Len() > 0 {
		_, _ = io.WriteString(t.also, lines.String()) // the guest goes on without anybody who watches
	}
	return len(p), nil
}

func (t *tail) panicLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.panic
}

// text is the end of the console, cleaned.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return clean(t.buf[max(0, len(t.buf)-tailSize):])
}

// escapes are what terminals interpret: colours, movements, titles.
var escapes = regexp.MustCompile("\x1b(\\[[0-9;?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|[@-Z\\\\-_c])")

// clean leaves out escape sequences, carriage returns and other bytes that a terminal would interpret.
func clean(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f {
			return r
		}
		return -1
	}, escapes.ReplaceAllString(string(b), ""))
}

// lastLines is what errors show: the end, or what surrounds the start of a panic.
func (t *tail) lastLines() string {
	lines := strings.Split(strings.TrimSpace(t.text()), "\n")
	end := len(lines)
	for i, l := range lines {
		if strings.Contains(l, panicMark) {
			end = min(end, i+tailLines/2)
			break
		}
	}
	return strings.Join(lines[max(0, end-tailLines):end], "\n")
}
