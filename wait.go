package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"wcfs/fusesrv"
	"wcfs/p9srv"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/open"
)

// waitCmd is `wcfs wait TARGET`.
type waitCmd struct {
	Target  string        `arg:"" help:"Mount directory or 9P address (unix:PATH, tcp:HOST:PORT, tls:HOST:PORT)."`
	At      string        `placeholder:"TID" help:"Wait also until head has come to this transaction."`
	Timeout time.Duration `default:"0" help:"Give up after this time; 0: never."`

	Dial p9srv.DialOptions `embed:""`
}

// pollEvery is how often the target is looked at.
const pollEvery = 50 * time.Millisecond

// Run returns when the target serves, and with --at when its head has come there.
func (c *waitCmd) Run(p *program) error {
	if err := mustBe(c.Target, "a mount directory or a 9P address", aMount, aNine); err != nil {
		return err
	}
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
		missing := c.look(ctx, at)
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
func (c *waitCmd) look(ctx context.Context, at zodb.Tid) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	head, err := c.head(ctx)
	if err != nil {
		return fmt.Sprintf("it does not serve yet: %v", err)
	}
	if got, err := zodb.ParseTid(head); err != nil || got < at {
		return fmt.Sprintf("head is at %s, not yet at %s", head, at)
	}
	return ""
}

func (c *waitCmd) head(ctx context.Context) (string, error) {
	if kindOf(c.Target) == aMount {
		r, err := fusesrv.Status(ctx, c.Target)
		return r.Head, err
	}
	t, err := dialTarget(ctx, c.Target, "", c.Dial)
	if err != nil {
		return "", err
	}
	defer t.close()
	return readSmall(ctx, t, "head/at")
}
