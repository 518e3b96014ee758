package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"wcfs/zcore/zodb"
)

// logCmd is `wcfs log ZURL`.
type logCmd struct {
	ZURL  string `arg:"" name:"zurl" help:"Database URL."`
	At    string `default:"now" placeholder:"TID" help:"Begin with the last transaction at or before this tid or moment."`
	Since string `placeholder:"TID" help:"Only transactions from this tid or moment on, like -1d or 2026-11-29T12:00 (UTC)."`
	N     int    `short:"n" default:"0" help:"At most so many; 0 for all."`
	JSON  bool   `name:"json" help:"Print a JSON object a line: tid, time, user, description, size, objects."`

	storageOptions
}

// Run prints transactions, newest first.
func (c *logCmd) Run(p *program) error {
	now := time.Now()
	at, err := zodb.ParseMoment(strings.TrimPrefix(c.At, "@"), now)
	if err != nil {
		return usagef("--at: %v", err)
	}
	var since zodb.Tid
	if c.Since != "" {
		s := strings.TrimPrefix(c.Since, "@")
		if since, err = zodb.ParseMoment(s, now); err != nil {
			return usagef("--since: %v", err)
		}
		if _, err := zodb.ParseTid(s); err != nil {
			since++ // the last tid not after a moment: those that follow are since then
		}
	}
	if c.N < 0 {
		return usagef("-n must not be negative")
	}
	if c.At == "now" {
		at = zodb.TidMax // a database whose clock is ahead
	}
	stor, err := openStorage(p.ctx, c.ZURL, &c.storageOptions)
	if err != nil {
		return err
	}
	defer stor.Close()
	ch, ok := stor.(zodb.Chronicler)
	if !ok {
		return errors.New("this kind of storage does not list its transactions; `wcfs history ZURL OID` has those that changed a bigfile")
	}
	return c.print(p, ch, at, since)
}

func (c *logCmd) print(p *program, ch zodb.Chronicler, at, since zodb.Tid) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	if !c.JSON {
		fmt.Fprintln(w, "tid\ttime (UTC)\tsize\tobjects\tuser\tdescription")
	}
	n := 0
	err := ch.Txns(p.ctx, at, func(x zodb.Txn) (bool, error) {
		if x.Tid < since {
			return false, nil
		}
		n++
		if c.JSON {
			err := json.NewEncoder(p.stdout).Encode(map[string]any{
				"tid": x.Tid.String(), "time": x.Tid.Time(), "user": string(x.User), "description": string(x.Description),
				"size": x.Size, "objects": x.Objects,
			})
			return n != c.N, err
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", x.Tid, showTime(x.Tid.Time()), known(x.Size, 0), known(int64(x.Objects), -1),
			oneLine(x.User), oneLine(x.Description))
		if n%1000 == 0 { // so that a long list begins at once
			if err := w.Flush(); err != nil {
				return false, err
			}
		}
		return n != c.N, nil
	})
	return errors.Join(err, w.Flush())
}

// known is a number, or - for the one that says it is not known.
func known(n, unknown int64) string {
	if n == unknown {
		return "-"
	}
	return fmt.Sprint(n)
}

// oneLine keeps what somebody wrote into a transaction from spoiling the table or the terminal.
func oneLine(b []byte) string {
	s := fmt.Sprintf("%q", b)
	return s[1 : len(s)-1]
}
