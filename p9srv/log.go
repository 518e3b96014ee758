package p9srv

import (
	"log/slog"
	"sync"
	"time"
)

// logger keeps clients from filling the log: of each kind of line there are a few a minute, and then a count.
type logger struct {
	out *slog.Logger

	mu    sync.Mutex
	kinds map[string]*logKind // by message; guarded by mu
}

type logKind struct {
	since time.Time // start of the period
	n     int       // lines in the period
}

const (
	logPeriod = time.Minute
	logLines  = 30 // of one kind in a period
)

func newLogger(out *slog.Logger) *logger {
	return &logger{out: out, kinds: make(map[string]*logKind)}
}

func (l *logger) warn(msg string, args ...any) {
	now := time.Now()
	l.mu.Lock()
	k := l.kinds[msg]
	if k == nil {
		k = &logKind{since: now}
		l.kinds[msg] = k
	}
	hidden := 0
	if now.Sub(k.since) > logPeriod {
		hidden = max(0, k.n-logLines)
		k.since, k.n = now, 0
	}
	k.n++
	show := k.n <= logLines
	l.mu.Unlock()
	if hidden > 0 {
		args = append(args, "not_logged_before", hidden)
	}
	if show {
		l.out.Warn(msg, args...)
	}
}
