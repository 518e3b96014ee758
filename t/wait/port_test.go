package wait

import (
	"fmt"
	"net"
	"runtime"
	"testing"
)

// A port is given once, nobody listens there, and the kernel gives it to nobody.
func TestPort(t *testing.T) {
	low, high, err := ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for range 200 {
		p := Port(t)
		if seen[p] {
			t.Fatalf("port %d was given twice", p)
		}
		seen[p] = true
		if p >= low && p <= high {
			t.Fatalf("port %d is one that the kernel gives out", p)
		}
	}
	runtime.GC()
	runtime.GC()
	for p := range seen {
		if _, err := net.Listen("unix", fmt.Sprintf("@wcfs-test-port-%d", p)); err == nil {
			t.Fatalf("port %d is not marked", p)
		}
	}
}
