package main

import (
	"context"
	"io"
	"log/slog"
)

// Formats of the log.
const (
	logText    = "text"
	logJSON    = "json"
	logJournal = "journal"
)

// logHandler makes lines of a format. The level is asked for every line, so that it may change.
func logHandler(format string, w io.Writer, level slog.Leveler) slog.Handler {
	switch format {
	case logJSON:
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	case logJournal:
		return newJournalHandler(w, level)
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
}

// journalHandler writes lines as systemd's journal takes them from stderr (sd-daemon(3)): a priority in angle brackets, and no time, which
// the journal has itself.
type journalHandler struct {
	level slog.Leveler
	by    []slog.Handler // for each of priorities
}

// priorities of syslog(3), by level, from the most severe on.
var priorities = []struct {
	level  slog.Level
	prefix string
}{
	{slog.LevelError, "<3>"}, {slog.LevelWarn, "<4>"}, {slog.LevelInfo, "<6>"}, {-1 << 31, "<7>"},
}

func newJournalHandler(w io.Writer, level slog.Leveler) *journalHandler {
	h := &journalHandler{level: level}
	bare := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	for _, p := range priorities {
		h.by = append(h.by, slog.NewTextHandler(prefixWriter{w, p.prefix}, &slog.HandlerOptions{Level: slog.Level(-1 << 31), ReplaceAttr: bare}))
	}
	return h
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	for i, p := range priorities {
		if r.Level >= p.level {
			return h.by[i].Handle(ctx, r)
		}
	}
	return nil
}

// each makes a handler of what fn makes of those that write.
func (h *journalHandler) each(fn func(slog.Handler) slog.Handler) slog.Handler {
	to := &journalHandler{level: h.level}
	for _, x := range h.by {
		to.by = append(to.by, fn(x))
	}
	return to
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(x slog.Handler) slog.Handler { return x.WithAttrs(attrs) })
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	return h.each(func(x slog.Handler) slog.Handler { return x.WithGroup(name) })
}

// prefixWriter is written a line at a time.
type prefixWriter struct {
	w      io.Writer
	prefix string
}

func (p prefixWriter) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
