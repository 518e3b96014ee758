//go:build soak

package contract

import (
	"testing"
	"time"
)

// -autoexit takes a minute.
func TestAutoexit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(1)
	w.start("-autoexit")
	w.touch(f, 0)
	l := w.link()
	l.bye()
	w.zh.close()
	began := time.Now()
	select {
	case <-w.srv.Done:
		if took := time.Since(began); took < 55*time.Second {
			t.Errorf("it exited after %v", took)
		}
	case <-time.After(2 * patience):
		t.Error("it did not exit")
	}
}
