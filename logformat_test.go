package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

// Each format has what the others have, and the journal's has priorities; the level can change while a log is in use.
func TestLogFormats(t *testing.T) {
	for _, x := range []struct{ format, debug, errors string }{
		{logText, "level=DEBUG msg=small with=it n=1", `level=ERROR msg="went wrong" with=it n=2`},
		{logJSON, `"level":"DEBUG","msg":"small","with":"it","n":1}`, `"level":"ERROR","msg":"went wrong","with":"it","n":2}`},
		{logJournal, "<7>msg=small with=it n=1", `<3>msg="went wrong" with=it n=2`},
	} {
		var out bytes.Buffer
		var level slog.LevelVar
		log := slog.New(logHandler(x.format, &out, &level)).With("with", "it")
		log.Debug("unseen")
		log.Error("went wrong", "n", 2)
		level.Set(slog.LevelDebug)
		log.Debug("small", "n", 1)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.HasSuffix(lines[0], x.errors) || !strings.HasSuffix(lines[1], x.debug) {
			t.Errorf("%s: %q", x.format, lines)
		}
		if x.format == logJSON && !json.Valid([]byte(lines[0])) {
			t.Errorf("not JSON: %s", lines[0])
		}
		if x.format == logJournal && !strings.HasPrefix(lines[0], "<3>") {
			t.Errorf("no priority: %s", lines[0])
		}
	}
}
