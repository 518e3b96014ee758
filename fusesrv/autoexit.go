package fusesrv

import (
	"context"
	"time"
)

// AutoexitAfter is how long nothing is open before a server started with -autoexit ends.
const AutoexitAfter = time.Minute

// Idle returns nil when nothing of the mount has been open for the time of after; never before
// something was opened once. It returns ctx's error when that ends first, or nil when serving has ended.
func (s *Server) Idle(ctx context.Context, after time.Duration) error {
	timer := time.NewTimer(after)
	defer timer.Stop()
	for {
		wait := after
		if since, idle := s.fs.files.idleSince(); idle {
			if wait = after - time.Since(since); wait <= 0 {
				return nil
			}
		}
		// Files opened and closed meanwhile only move the end further away.
		timer.Reset(max(wait, time.Millisecond))
		select {
		case <-timer.C:
		case <-s.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
