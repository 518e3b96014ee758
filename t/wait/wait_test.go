package wait

import (
	"testing"
	"time"
)

func TestScaled(t *testing.T) {
	for by, want := range map[string]time.Duration{"": time.Minute, "2": 2 * time.Minute, "0.5": 30 * time.Second, "10": 10 * time.Minute} {
		if got := scaled(time.Minute, by); got != want {
			t.Errorf("%q: %v, want %v", by, got, want)
		}
	}
	for _, by := range []string{"0", "-1", "much", "1e9", "NaN"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is taken as a number", by)
				}
			}()
			scaled(time.Minute, by)
		}()
	}
}

// fatal is a test that notes its end in place of ending.
type fatal struct {
	testing.TB
	failed bool
}

func (f *fatal) Helper() {}

func (f *fatal) Fatalf(string, ...any) {
	f.failed = true
	panic(f)
}

func TestLimit(t *testing.T) {
	long := Patience
	defer func() { Patience = long }()
	Patience = 10 * time.Millisecond
	for name, do := range map[string]func(testing.TB){
		"Until": func(t testing.TB) { Until(t, "never", func() bool { return false }) },
		"Recv":  func(t testing.TB) { Recv(t, "nothing", make(chan int)) },
	} {
		f := &fatal{TB: t}
		func() {
			defer func() { _ = recover() }()
			do(f)
		}()
		if !f.failed {
			t.Errorf("%s waits for ever, or does not fail", name)
		}
	}
	Patience = long
	one := make(chan int, 1)
	one <- 7
	if got := Recv(t, "a number", one); got != 7 {
		t.Errorf("got %d", got)
	}
	n := 0
	Until(t, "the third time", func() bool { n++; return n == 3 })
}
