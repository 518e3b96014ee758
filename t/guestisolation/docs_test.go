package guestisolation

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"wcfs/t/py"
	"wcfs/zcore/zodb"
)

// docs runs what docs/guests.md shows for guests of a kind, line by line; only the port is another, and
// $oid is set.
func docs(t *testing.T, g *guest, how transport, s *server, oid zodb.Oid) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(py.Root(), "docs/guests.md"))
	if err != nil {
		t.Fatal(err)
	}
	if how == virtfs {
		g.must(patience, "umount -l /wcfs; sleep 1") // a tag can be mounted once
	}
	g.must(patience, "oid=%s", oid)
	lines := 0
	for _, m := range regexp.MustCompile("(?s)```guest ([a-z0-9 ]+)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(strings.Fields(m[1]), string(how)) {
			continue
		}
		for line := range strings.Lines(m[2]) {
			line = strings.TrimSpace(line)
			said := g.must(patience, "%s", strings.ReplaceAll(line, "port=5640", "port="+s.port))
			if line == "cat /tmp/pins" && !strings.HasPrefix(said, "watch "+oid.String()+" @") {
				t.Errorf("%s: wcfs watch says %q", g.name, said)
			}
			lines++
		}
	}
	if lines < 6 {
		t.Errorf("docs/guests.md has %d lines for %s", lines, how)
	}
}
