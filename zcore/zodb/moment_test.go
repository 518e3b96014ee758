package zodb_test

import (
	"testing"
	"time"

	"wcfs/zcore/zodb"
)

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 11, 29, 20, 30, 0, 250, time.UTC)
	at := func(y int, mon time.Month, d, h, m, s, ns int) time.Time {
		return time.Date(y, mon, d, h, m, s, ns, time.UTC)
	}
	for s, want := range map[string]time.Time{
		"now": now, "-0s": now, "-10m": now.Add(-10 * time.Minute), "-1h30m": now.Add(-90 * time.Minute), "-2d": now.AddDate(0, 0, -2),
		"-1w": now.AddDate(0, 0, -7), "-1w2d3h": now.AddDate(0, 0, -9).Add(-3 * time.Hour), "-1.5s": now.Add(-1500 * time.Millisecond),
		"2026-11-29": at(2026, 11, 29, 0, 0, 0, 0), "2026-11-29T12:00": at(2026, 11, 29, 12, 0, 0, 0), "2026-11-29 12:00": at(2026, 11, 29, 12, 0, 0, 0),
		"2026-11-29T12:00:05.25": at(2026, 11, 29, 12, 0, 5, 25e7), "2026-11-29T12:00Z": at(2026, 11, 29, 12, 0, 0, 0),
		"2026-11-29T12:00+01:00": at(2026, 11, 29, 11, 0, 0, 0), "2026-01-01T00:30+01:00": at(2025, 12, 31, 23, 30, 0, 0), "2024-02-29T23:59:59-12:00": at(2024, 3, 1, 11, 59, 59, 0),
	} {
		got, err := zodb.ParseMoment(s, now)
		// the greatest tid whose time is not after it
		if err != nil || got.Time().After(want) || zodb.TidFromTime(want) > got+1 || zodb.TidFromTime(want.Add(1)) <= got {
			t.Errorf("%s: %s, %v (%v), want %v", s, got, got.Time(), err, want)
		}
	}
	if got, err := zodb.ParseMoment("03f6dcb022a8faed", now); err != nil || got != 0x03f6dcb022a8faed {
		t.Errorf("a tid: %s (%v)", got, err)
	}
	for _, s := range []string{"", "-", "x", "-x", "--1m", "-1", "+1m", "-+1m", "2026-13-01", "2026-02-30", "2026-11-29T24:30", "12:00", "1850-01-01", "9999-01-01", "2026-11-29T", "now ", "03F6DCB022A8FAED", "-1d1w"} {
		if got, err := zodb.ParseMoment(s, now); err == nil {
			t.Errorf("%q: %s", s, got)
		}
	}
}
