package fusesrv

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// mountEntry is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mountEntry struct {
	dir, fsType, source string
	root                string // which part of the file system is mounted there, "/" for all of it
	major, minor        uint32
}

// findMount returns what is mounted at dir, an absolute path; the uppermost if there are several. It
// does not touch dir.
func findMount(dir string) (*mountEntry, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found *mountEntry
	for line := range bytes.Lines(raw) {
		m, err := parseMount(strings.TrimSuffix(string(line), "\n"))
		if err != nil {
			return nil, err
		}
		if m.dir == dir {
			found = m
		}
	}
	if found == nil {
		return nil, absent(dir + ": nothing is mounted there")
	}
	return found, nil
}

// absent is an error that matches os.ErrNotExist and says by itself what is not there.
type absent string

func (e absent) Error() string        { return string(e) }
func (e absent) Is(target error) bool { return target == os.ErrNotExist }

// mountedAs tells whether device minor is what is mounted at dir.
func mountedAs(dir string, minor uint32) bool {
	m, err := findMount(dir)
	return err == nil && m.minor == minor && m.fsType == fsType
}

func parseMount(line string) (*mountEntry, error) {
	bad := func() (*mountEntry, error) { return nil, fmt.Errorf("mountinfo: cannot make out %q", line) }
	head, tail, ok := strings.Cut(line, " - ")
	f, g := strings.Split(head, " "), strings.Split(tail, " ")
	if !ok || len(f) < 6 || len(g) < 2 {
		return bad()
	}
	ma, mi, ok := strings.Cut(f[2], ":")
	major, err1 := strconv.ParseUint(ma, 10, 32)
	minor, err2 := strconv.ParseUint(mi, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return bad()
	}
	return &mountEntry{
		dir: unescape(f[4]), root: unescape(f[3]), fsType: unescape(g[0]), source: unescape(g[1]),
		major: uint32(major), minor: uint32(minor),
	}, nil
}

// unescape undoes \NNN, which is how the kernel writes spaces, tabs, newlines, '\' and '#'.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
