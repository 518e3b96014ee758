package wait

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
)

// marks keeps the marks of ports open: a listener that nothing refers to is closed.
var marks struct {
	mu  sync.Mutex
	all []net.Listener // guarded by mu
}

// Port returns a TCP port of 127.0.0.1 for a server that another process starts, and may start again. Nobody else gets it
// until this process ends: the kernel gives it to no connection, as it is outside the range for those, and to no other
// caller of Port in any process, as an abstract Unix socket marks it.
func Port(t testing.TB) int {
	t.Helper()
	p, err := FindPort()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// FindPort is Port for programs that are no tests.
func FindPort() (int, error) {
	low, high, err := ephemeral()
	if err != nil {
		return 0, err
	}
	for range 10000 {
		p := 10000 + rand.IntN(55536)
		if p >= low && p <= high {
			continue
		}
		mark, err := net.Listen("unix", fmt.Sprintf("@wcfs-test-port-%d", p))
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			mark.Close()
			continue
		}
		marks.mu.Lock()
		defer marks.mu.Unlock()
		marks.all = append(marks.all, mark)
		return p, l.Close()
	}
	return 0, fmt.Errorf("no TCP port is free outside %d-%d", low, high)
}

// ephemeral is the range from which the kernel takes ports that nobody names.
func ephemeral() (low, high int, err error) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &low, &high)
	}
	return low, high, err
}
