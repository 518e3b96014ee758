package guestisolation

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"wcfs/qemu/qemutest"
)

// outcome is what a checker said in the end.
type outcome struct {
	said   string
	status int
	num    map[string]int
}

// parse reads the output of a checker, and its exit status behind it.
func parse(said string) outcome {
	o := outcome{said: strings.TrimSpace(said), status: -1, num: map[string]int{}}
	for line := range strings.Lines(said) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == "exit" {
			o.status, _ = strconv.Atoi(f[1])
			continue
		}
		if len(f) == 0 || f[0] != "checks" {
			continue
		}
		for i := 0; i+1 < len(f); i += 2 {
			o.num[f[i]], _ = strconv.Atoi(f[i+1])
		}
	}
	return o
}

// tally adds up what the checkers of one place did; each must have ended well.
func tally(t *testing.T, who string, list []outcome) map[string]int {
	t.Helper()
	sum := map[string]int{}
	for i, o := range list {
		if o.status != 0 {
			t.Errorf("%s, client %d: status %d: %s", who, i, o.status, o.said)
		}
		for k, v := range o.num {
			if strings.HasSuffix(k, "-ms") {
				sum[k] = max(sum[k], v)
			} else {
				sum[k] += v
			}
		}
	}
	t.Logf("%s: %v", who, sum)
	return sum
}

// meaningful fails when too little happened to mean anything.
func meaningful(t *testing.T, who string, sum map[string]int) {
	t.Helper()
	for name, n := range map[string]int{"checks": 100, "pinned": 10, "exact": 20, "resyncs": 10, "opens": 5} {
		if sum[name] < n {
			t.Errorf("%s: %s: %d, which is no test", who, name, sum[name])
		}
	}
}

// hostCheck is the checker on the host's mount.
type hostCheck struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func startHostCheck(t *testing.T, s *server, seconds, seed int) *hostCheck {
	t.Helper()
	h := &hostCheck{cmd: s.check(seconds, seed)}
	h.cmd.Stdout, h.cmd.Stderr = &h.out, &h.out
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.cmd.Process.Kill() })
	return h
}

func (h *hostCheck) wait() outcome {
	_ = h.cmd.Wait()
	return parse(h.out.String() + fmt.Sprintf("\nexit %d\n", h.cmd.ProcessState.ExitCode()))
}

// isolation runs guests, three clients in each, and one client on the host, all at once.
func isolation(t *testing.T, seconds int, specs ...spec) {
	qemutest.Turn(t)
	w := startWriter(t)
	s := startServer(t, w, 60*time.Second)
	var guests []*guest
	for _, sp := range specs {
		sp.port = s.port
		guests = append(guests, boot(t, s, sp))
	}
	for _, g := range guests {
		g.running()
		g.pressure()
	}
	base := readBase(t, s)
	for i, g := range guests {
		g.check(w, 3, seconds, 100*(i+1))
	}
	host := startHostCheck(t, s, seconds, 7)
	for _, g := range guests {
		meaningful(t, g.name, tally(t, g.name, g.checked(3, seconds)))
	}
	meaningful(t, "host", tally(t, "host", []outcome{host.wait()}))
	for i, g := range guests {
		docs(t, g, specs[i].how, s, w.oids[0])
	}
	if n := s.stat("pinkill"); n != 0 {
		t.Errorf("%d clients were killed", n)
	}
	w.finish()
	t.Logf("%d commits; blocks of the files %v; pins %d; base moved: %v", w.n, w.end, s.stat("pin"), base != readBase(t, s))
}

func readBase(t *testing.T, s *server) string {
	t.Helper()
	b, err := os.ReadFile(s.mnt + "/head/base")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func soak() bool { return os.Getenv("WCFS_SOAK") != "" }

// Two guests with different kernels at once over native 9P.
func TestTCP(t *testing.T) {
	isolation(t, 12,
		spec{name: "a6.1", kernel: "6.1", how: tcp, cpus: 1},
		spec{name: "b6.12", kernel: "6.12", how: tcp, cpus: 1})
}

func TestVirtfs(t *testing.T) {
	isolation(t, 10, spec{name: "v6.1", kernel: "6.1", how: virtfs, cpus: 2})
}
