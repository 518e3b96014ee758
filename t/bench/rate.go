package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"wcfs/t/bench/kit"
	"wcfs/zcore/zodb"
)

// files commits to more and more files at once, one block each.
func files(ctx context.Context, b *kit.Bench) ([]kit.Row, error) {
	s, err := newServed(ctx, b, 100)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var points []kit.Point
	for _, n := range []int{1, 10, 100} {
		points = append(points, kit.Point{Name: fmt.Sprintf("files changed: %d", n), Run: func() (time.Duration, error) {
			var list []time.Duration
			for range commits {
				tid, err := s.commit(n, 1)
				began := time.Now()
				if err == nil {
					err = untilShown(ctx, filepath.Join(s.Dir, "head/at"), tid)
				}
				if err != nil {
					return 0, err
				}
				list = append(list, time.Since(began))
			}
			return kit.Median(list), nil
		}})
	}
	return b.Curve(ctx, "commit to head/at", points...)
}

// rate commits ten blocks at a time, more and more often, and looks how far head/at is behind.
func rate(ctx context.Context, b *kit.Bench) ([]kit.Row, error) {
	s, err := newServed(ctx, b, 1)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var points []kit.Point
	for _, perSecond := range []int{10, 100, 1000} {
		var made int
		var took, used time.Duration
		points = append(points, kit.Point{
			Name: fmt.Sprintf("commits/s: %d", perSecond),
			Run: func() (time.Duration, error) {
				cpu, began := s.CPU(), time.Now()
				lag, err := s.lag(ctx, perSecond, max(perSecond, 10))
				made, took, used = made+max(perSecond, 10), took+time.Since(began), used+s.CPU()-cpu
				return lag, err
			},
			Note: func() string {
				return fmt.Sprintf("%.0f commits/s made, the server used %.2f ms of a processor for each", float64(made)/took.Seconds(),
					used.Seconds()*1e3/float64(made))
			},
		})
	}
	return b.Curve(ctx, "head/at behind commits of 10 blocks", points...)
}

// lag makes n commits at a pace, and tells the median of how long after each head/at had it.
func (s *served) lag(ctx context.Context, perSecond, n int) (time.Duration, error) {
	type commit struct {
		tid zodb.Tid
		at  time.Time
	}
	made := make(chan commit, n)
	result := make(chan []time.Duration, 1)
	failed := make(chan error, 1)
	go func() {
		var list []time.Duration
		at := filepath.Join(s.Dir, "head/at")
		var seen string
		for c := range made {
			if seen < c.tid.String() {
				err := kit.Poll(at, func(text string) (bool, error) {
					seen = text
					return seen >= c.tid.String(), context.Cause(ctx)
				})
				if err != nil {
					failed <- err
					return
				}
			}
			list = append(list, time.Since(c.at))
		}
		result <- list
	}()
	err := func() error {
		defer close(made)
		began := time.Now()
		for i := range n {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
			tid, err := s.commit(1, 10)
			if err != nil {
				return err
			}
			made <- commit{tid, time.Now()}
		}
		return nil
	}()
	if err != nil {
		return 0, err
	}
	select {
	case list := <-result:
		return kit.Median(list), nil
	case err := <-failed:
		return 0, err
	}
}
