package zodb

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseMoment turns what a user says about time into the last tid that is not after it: a tid, "now", an age like -10m,
// -1h30m, -2d or -1w, or a date with or without a time, as 2026-11-29, 2026-11-29T12:00, 2026-11-29T12:00:05.5. A date without
// a time is its beginning. A time is UTC, as everything that wcfs prints, unless Z or an offset like +01:00 follows it. The local
// time zone never matters.
func ParseMoment(s string, now time.Time) (Tid, error) {
	if tid, err := ParseTid(s); err == nil {
		return tid, nil
	}
	tm, err := parseTime(s, now)
	if err != nil {
		return 0, err
	}
	if y := tm.Year(); y < 1900 || y > 8000 {
		return 0, fmt.Errorf("%q is not in the years 1900 to 8000, which tids can tell", s)
	}
	return TidFromTime(tm.Add(1)) - 1, nil
}

func parseTime(s string, now time.Time) (time.Time, error) {
	switch {
	case s == "now":
		return now, nil
	case strings.HasPrefix(s, "-"):
		age, err := parseAge(s[1:])
		return now.Add(-age), err
	}
	for _, day := range []string{"2006-01-02T", "2006-01-02 "} {
		for _, clock := range []string{"15:04", "15:04:05"} { // fractions are read though they are not in the form
			for _, zone := range []string{"", "Z07:00"} {
				if tm, err := time.Parse(day+clock+zone, s); err == nil {
					return tm, nil
				}
			}
		}
	}
	if tm, err := time.Parse("2006-01-02", s); err == nil {
		return tm, nil
	}
	return time.Time{}, fmt.Errorf("%q is no moment: give a tid of 16 hex digits, now, an age like -10m, or a time like 2026-11-29T12:00 (UTC) or 2026-11-29T12:00+01:00", s)
}

// parseAge is time.ParseDuration with days and weeks of 24 hours before the rest.
func parseAge(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is no age: write it like 10m, 1h30m, 2d or 1w", s)
	total, rest := time.Duration(0), s
	for _, unit := range []struct {
		name string
		len  time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		num, after, ok := strings.Cut(rest, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(num, 10, 16)
		if err != nil {
			return 0, bad
		}
		total, rest = total+time.Duration(n)*unit.len, after
	}
	if rest == "" && s != "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.ContainsAny(rest, "+-") {
		return 0, bad
	}
	return total + d, nil
}

// Txn is what a database keeps of a transaction besides its objects.
type Txn struct {
	Tid         Tid
	User        []byte
	Description []byte
	Size        int64 // bytes in the database, 0 if it does not know
	Objects     int   // how many it changed, created or deleted; -1 if that is not known
}

// Chronicler is implemented by drivers that can tell of single transactions.
type Chronicler interface {
	// LastTid returns the last transaction not after at, 0 if there is none.
	LastTid(ctx context.Context, at Tid) (Tid, error)

	// Txns calls fn for transactions not after at, newest first, until there are no more or fn answers false.
	Txns(ctx context.Context, at Tid, fn func(Txn) (bool, error)) error
}
