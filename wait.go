package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"wcfs/p9srv"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/open"
)

// waitCmd is `wcfs wait TARGET`.
type waitCmd struct {
	Target  string        `arg:"" help:"Mount directory, 9P address (unix:PATH, tcp:HOST:PORT, tls:HOST:PORT) or database URL."`
	At      string        `placeholder:"TID" help:"Wait also until head has come to this transaction."`
	Timeout time.Duration `placeholder:"TIME" help:"Give up after this time. Default: never."`

	Dial p9srv.DialOptions `embed:""`
	storageOptions
}

// pollEvery is how often the target is looked at.
const pollEvery = 50 * time.Millisecond

// Run returns when the target serves, and with --at when its head has come there.
func (c *waitCmd) Run(p *program) error {
	var at zodb.Tid
	if c.At != "" {
		var err error
		if at, err = zodb.ParseTid(strings.TrimPrefix(c.At, "@")); err != nil {
			return usagef("--at: %v", err)
		}
	}
	ctx := p.ctx
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	began, told := time.Now(), false
	for {
		missing := c.look(ctx, p, at)
		if missing == "" {
			return nil
		}
		if !told && time.Since(began) > time.Second {
			fmt.Fprintf(p.stderr, "wcfs wait: %s: %s\n", open.Redact(c.Target), missing)
			told = true
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return fmt.Errorf("%s: %s", open.Redact(c.Target), missing)
		}
	}
}

// look tells what is still missing, "" if nothing is.
func (c *waitCmd) look(ctx context.Context, p *program, at zodb.Tid) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := report(ctx, p, c.Target, c.Dial, &c.storageOptions)
	head := r.Head
	if err != nil {
		return fmt.Sprintf("it does not serve yet: %v", err)
	}
	if got, err := zodb.ParseTid(head); err != nil || got < at {
		return fmt.Sprintf("head is at %s, not yet at %s", head, at)
	}
	return ""
}
