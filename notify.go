package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// statusEvery is how often systemd is told the state in a sentence.
const statusEvery = 5 * time.Second

// notify tells systemd, or the parent of a daemon; without one it does nothing.
func notify(lines string) { _, _ = daemon.SdNotify(false, lines) } // a manager that is gone needs no answer

// notifyReady says that the server serves, keeps the sentence about its state true, and feeds the watchdog as long as
// that sentence can be made: a core whose locks hang starves it. It returns what ends all that.
func (s *server) notifyReady(where string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	notify(daemon.SdNotifyReady + "\nSTATUS=" + s.sentence(where))
	every := statusEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err == nil && watchdog > 0 {
		every = min(every, watchdog/3)
	}
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			lines := "STATUS=" + s.sentence(where)
			if watchdog > 0 {
				lines = daemon.SdNotifyWatchdog + "\n" + lines
			}
			notify(lines)
		}
	}()
	return func() {
		cancel()
		notify(daemon.SdNotifyStopping)
	}
}

// sentence is the state of the server on one line.
func (s *server) sentence(where string) string {
	h := s.core.Health()
	if h.Why != "" {
		return fmt.Sprintf("%s: %s", h.State, h.Why)
	}
	return fmt.Sprintf("%s: serving %s, head %s", h.State, where, h.Head.At)
}

// notifyReload tells systemd that a reload begins, and returns what tells that it has ended.
func notifyReload() (done func()) {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
		notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
	}
	return func() { notify(daemon.SdNotifyReady) }
}
