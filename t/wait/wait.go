// Package wait has the one limit on how long a test waits for what should take a moment.
//
// Tests wait for conditions and never for time. The limit only ends a test that would wait for ever, so it is generous: a
// machine that is busy with ten other things must not fail a test. WCFS_TEST_PATIENCE multiplies it, for machines slower still.
// A limit that is itself what is measured belongs to a benchmark.
package wait

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// Variable names the environment variable that multiplies Patience, such as 5 or 0.5.
const Variable = "WCFS_TEST_PATIENCE"

// Patience is how long anything may take that should take a moment.
var Patience = scaled(2*time.Minute, os.Getenv(Variable))

func scaled(d time.Duration, by string) time.Duration {
	if by == "" {
		return d
	}
	f, err := strconv.ParseFloat(by, 64)
	if err != nil || !(f > 0 && f <= 1000) {
		panic(fmt.Sprintf("%s=%q: must be a number above 0, at most 1000", Variable, by))
	}
	return time.Duration(f * float64(d))
}

// Until polls until cond holds, or fails the test. It is called by the goroutine of the test.
func Until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for: %s", Patience, what)
		}
	}
}

// Recv returns what comes from c, or the zero value when c is closed. It fails the test when nothing comes, and is called by
// the goroutine of the test.
func Recv[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatalf("waited %v for: %s", Patience, what)
		panic("unreachable")
	}
}
