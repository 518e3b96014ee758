package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// serverSignals is what a server does about the signals that do not end it. SIGINT and SIGTERM, which do, end
// program.ctx.
//
//	HUP   read anew what can be: certificates and the map
//	USR1  turn logging of details on or off
//	USR2  nothing
//	QUIT  write what all goroutines are doing, and go on
//	PIPE  nothing: a stderr that nobody reads loses lines of the log
type serverSignals struct {
	p       *program
	signals chan os.Signal
	done    chan struct{}

	mu     sync.Mutex
	reload func() error // guard: mu; nil: there is nothing to read anew
}

// handleSignals handles them until stop is called, and makes the log lossy.
func (p *program) handleSignals() *serverSignals {
	if f, ok := p.stderr.(*os.File); ok {
		l := newLossyWriter(f, p.logFormat)
		p.stderr, p.flush = l, l.flush
		p.newLogger(p.level.Level() == slog.LevelDebug)
	}
	s := &serverSignals{p: p, signals: make(chan os.Signal, 4), done: make(chan struct{})}
	// Without this a write to a stderr that nobody reads would end the process, also where SIGPIPE is ignored.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signal.Notify(s.signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT)
	go func() {
		for {
			select {
			case <-s.done:
				return
			case sig := <-s.signals:
				s.handle(sig)
			}
		}
	}()
	return s
}

func (s *serverSignals) stop() {
	close(s.done) // a signal that comes now is still caught, so that it does not end the process in mid-cleanup
}

// onReload says what SIGHUP does from now on.
func (s *serverSignals) onReload(reload func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reload = reload
}

func (s *serverSignals) handle(sig os.Signal) {
	log := s.p.log
	switch sig {
	case syscall.SIGHUP:
		s.mu.Lock()
		reload := s.reload
		s.mu.Unlock()
		defer notifyReload()()
		if reload == nil {
			log.Info("SIGHUP: there is nothing to read anew")
		} else if err := reload(); err != nil {
			log.Error("certificates stay as they were", "cause", err)
		} else {
			log.Info("certificates were read anew")
		}
	case syscall.SIGUSR1:
		level := slog.LevelDebug
		if s.p.level.Level() == slog.LevelDebug {
			level = slog.LevelInfo
		}
		s.p.level.Set(level)
		log.Info("SIGUSR1: log level", "level", level)
	case syscall.SIGUSR2:
		log.Info("SIGUSR2: has no meaning")
	case syscall.SIGQUIT:
		buf := make([]byte, 4<<20)
		s.p.stderr.Write(buf[:runtime.Stack(buf, true)])
	}
}

// interrupted makes one plain error of whatever a signal caused before there was anything to end.
func (p *program) interrupted(err error) error {
	if err == nil || p.ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	return errors.New("interrupted by a signal while starting; nothing is left")
}

// lossyWriter never makes its writer wait: what cannot be written soon enough is lost, and counted.
type lossyWriter struct {
	w     *os.File
	queue chan []byte
	left  atomic.Int64 // lines not written yet
	lost  atomic.Int64
}

// logLines is how many lines wait for a slow reader of stderr.
const logLines = 4096

func newLossyWriter(w *os.File, format string) *lossyWriter {
	l := &lossyWriter{w: w, queue: make(chan []byte, logLines)}
	go func() {
		for line := range l.queue {
			if n := l.lost.Swap(0); n > 0 {
				slog.New(logHandler(format, l.w, slog.LevelInfo)).Warn("lines of the log were lost: stderr was not read", "lines", n)
			}
			l.w.Write(line) // a reader that has gone loses them
			l.left.Add(-1)
		}
	}()
	return l
}

func (l *lossyWriter) Write(p []byte) (int, error) {
	l.left.Add(1)
	select {
	case l.queue <- append([]byte(nil), p...):
	default:
		l.left.Add(-1)
		l.lost.Add(1)
	}
	return len(p), nil
}

// flush waits until what was written has gone out, but not for a reader who takes nothing.
func (l *lossyWriter) flush() {
	for end := time.Now().Add(time.Second); l.left.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}
