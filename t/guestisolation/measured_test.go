package guestisolation

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"wcfs/qemu/qemutest"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// measured is a guest that looks at what its kernel makes of the server's files; docs/guests.md tells what it
// found. Nothing is committed but when it wants.
type measured struct {
	t  *testing.T
	w  *writer
	s  *server
	g  *guest
	at zodb.Tid // of the last commit
}

// TestMeasured leaves out what takes long, and one kernel, unless WCFS_SOAK=1.
func TestMeasured(t *testing.T) {
	kernels := []string{"6.12"}
	if soak() {
		kernels = []string{"6.1", "6.12"}
	}
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) { measure(t, k) })
	}
}

func measure(t *testing.T, kernel string) {
	qemutest.Turn(t)
	m := &measured{t: t, w: newWriter(t)}
	m.s = startServer(t, m.w, 20*time.Second)
	m.g = boot(t, m.s, spec{name: "measured", kernel: kernel, how: both, port: m.s.port, cpus: 2})
	m.commit(nil)
	m.g.running()
	for _, mnt := range []string{"/wcfs", "/virtfs"} {
		m.remap(mnt)
		if soak() {
			m.second(mnt, kernel)
			m.padded(mnt + "/head/watch9")
			m.crowd(mnt)
		}
	}
	if soak() {
		m.padded("/wcfs/head/watch")
	}
	m.domains()
	m.loose()
	if soak() {
		m.memory()
	}
}

// commit changes every block, and waits until the server has come to that.
func (m *measured) commit(before func(*zgen.Tx)) {
	m.t.Helper()
	m.at = m.w.commit(before, initial())
	eventually(m.t, "the commit", func() bool {
		b, err := os.ReadFile(m.s.mnt + "/head/at")
		if err != nil {
			m.t.Fatal(err)
		}
		return string(b) == m.at.String()
	})
}

// probe runs one, which must end well, and returns its numbers.
func (m *measured) probe(format string, args ...any) map[string]int {
	m.t.Helper()
	what := fmt.Sprintf(format, args...)
	said := m.g.must(2*time.Minute, "/probes %s", what)
	m.t.Logf("%s: %s", what, strings.ReplaceAll(said, "\n", " "))
	num := map[string]int{}
	f := strings.Fields(said)
	for i := 0; i+1 < len(f); i += 2 {
		num[f[i]], _ = strconv.Atoi(f[i+1])
	}
	return num
}

// remap: whoever touches a block, the pin that comes of it can be served while the fault is held.
func (m *measured) remap(mnt string) {
	for _, how := range []string{"load", "pipe", "populate"} {
		m.probe("remap %s %s %s", mnt, m.w.oids[0], how)
	}
}

// memory: who reads a view through /proc/PID/mem keeps its process from mapping what a pin asks for.
func (m *measured) memory() {
	m.mounted("/mem", "cache=none,access=any,uname=debugger")
	began := time.Now()
	said, status := m.g.sh(2*time.Minute, "/probes remap /mem %s mem", m.w.oids[0])
	m.t.Logf("/proc/self/mem: status %d after %v: %s", status, time.Since(began).Round(time.Second), said)
	if status == 0 || time.Since(began) < m.s.pintimeout {
		m.t.Error("/proc/self/mem does no harm: docs/guests.md says it does")
	}
}

// second: a page that goes while it is being read is read again under the process' memory lock, and nobody
// waits for acknowledgements then.
func (m *measured) second(mnt, kernel string) {
	n := m.probe("second %s %s 15", mnt, m.w.oids[1])
	limit := int(m.s.pintimeout.Microseconds()) / 4
	if n["touch-max-us"] > limit || n["mmap-max-us"] > limit {
		m.t.Errorf("%s: a thread was held up", mnt)
	}
	twice := n["messages"] - n["faults"] // of virtfs there is no count; 6.1 does it seldom
	if mnt == "/wcfs" && kernel != "6.1" && twice < 3 {
		m.t.Errorf("%s: %d pages were read twice in one fault: this shows nothing", mnt, twice)
	}
}

// padded: messages come at once, whatever they are read into; a writer who has to wait for a reader waits no
// longer than for two signs of life.
func (m *measured) padded(watch string) {
	n := m.probe("padded %s", watch)
	for name, limits := range map[string][2]int{
		"blank-ms": {2000, 10000}, "blank-100-ms": {2000, 10000}, "message-ms": {0, 2000}, "pwrite-us": {0, 2000000}, "write-ms": {0, 15000},
	} {
		if got := n[name]; got < limits[0] || got > limits[1] {
			m.t.Errorf("%s: %s %d", watch, name, got)
		}
	}
}

// crowd: more reads wait than QEMU has threads.
func (m *measured) crowd(mnt string) {
	if n := m.probe("crowd %s 70", mnt); n["read-max-ms"] > 4000 {
		m.t.Errorf("%s: others wait", mnt)
	}
}

// mounted mounts the server once more.
func (m *measured) mounted(dir, options string) {
	m.t.Helper()
	m.g.must(patience, "mkdir -p %s; mount -t 9p -o trans=tcp,port=%s,version=9p2000.L,msize=1044504,%s 10.0.2.2 %s", dir, m.s.port, options, dir)
}

// domains: what one mount has read comes as pins to a watch of another one if both are of one domain.
func (m *measured) domains() {
	base, oid := readBase(m.t, m.s), m.w.oids[2]
	m.mounted("/a", "cache=none,access=any,uname=one")
	m.g.must(patience, "cat /a/base/%s/bigfile/%s >/dev/null", base, oid)
	for _, other := range []struct {
		name, options, watch string
		pins                 int
	}{
		{"/same", "cache=none,access=any,uname=one", "/same/head/watch9", 6},
		{"/head", "cache=none,access=any,uname=one,aname=/head", "/head/watch9", 6},
		{"/noslash", "cache=none,access=any,uname=one,aname=head", "/noslash/watch9", 6},
		{"/peruser", "cache=none,uname=one", "/peruser/head/watch9", 6},
		{"/other", "cache=none,access=any,uname=two", "/other/head/watch9", 0},
	} {
		m.mounted(other.name, other.options)
		if n := m.probe("setup %s %s %s %s", other.watch, oid, m.at, base); n["pins"] != other.pins {
			m.t.Errorf("%s: %d pins, want %d", other.options, n["pins"], other.pins)
		}
	}
	m.mounted("/nobody", "cache=none,access=any")
	if said, status := m.g.sh(patience, "/probes setup /nobody/head/watch9 %s %s %s", oid, m.at, base); status == 0 || !strings.Contains(said, "uname=NAME") {
		m.t.Errorf("a mount without uname: %s", said)
	}
	m.g.must(patience, "umount /same /head /noslash /peruser /other /nobody")
}

// loose: what a cache=loose mount shows of names that come late, and what it keeps.
func (m *measured) loose() {
	m.mounted("/loose", "cache=loose,access=any,uname=one")
	has := func(path string) bool {
		_, status := m.g.sh(patience, "ls -d %s", path)
		return status == 0
	}
	late := m.at + 1
	wasLate, wasNew, oid := false, false, zodb.Oid(0)
	m.commit(func(tx *zgen.Tx) {
		oid = tx.NewFile(blksize)
		wasLate, wasNew = has("/loose/@"+late.String()), has("/loose/head/bigfile/"+oid.String())
	})
	if wasLate || wasNew || !has("/loose/@"+late.String()) || !has("/loose/head/bigfile/"+oid.String()) {
		m.t.Errorf("cache=loose: a revision and a file that come late: %v %v, then they are not both there", wasLate, wasNew)
	}
	if has("/loose/@"+late.String()+"/bigfile/"+oid.String()) || !has("/loose/@"+m.at.String()+"/bigfile/"+oid.String()) {
		m.t.Error("cache=loose: a file is to be in the revision that made it, and not before")
	}
	m.g.must(patience, "umount /loose; echo 2 >/proc/sys/vm/drop_caches")
	m.kept("/a")
	m.mounted("/loose", "cache=loose,access=any,uname=one")
	m.kept("/loose")
	at := m.at
	m.g.must(patience, "cat /loose/head/at >/dev/null")
	m.commit(nil)
	if said := m.g.must(patience, "cat /loose/head/at"); said != at.String() && said != m.at.String() {
		m.t.Errorf("head/at is %s", said)
	} else {
		m.t.Logf("cache=loose: head/at goes stale: %v", said == at.String())
	}
}

// kept looks at 20 revisions, and tells how many of them the server has to keep since the guest's kernel does.
func (m *measured) kept(mnt string) {
	m.t.Helper()
	revs := func() int { return m.s.stat("RevHead") }
	was := revs()
	m.g.must(patience, "i=0; while [ $i -lt 20 ]; do ls -d /%s/@$(printf %%016x $((0x%s - i))) >/dev/null || break; i=$((i + 1)); done", mnt, m.at)
	keeps := revs() - was
	m.g.must(patience, "echo 2 >/proc/sys/vm/drop_caches")
	eventually(m.t, "revisions to be forgotten", func() bool { return revs() <= was })
	m.t.Logf("%s: of 20 revisions looked at %d are kept until drop_caches", mnt, keeps)
}
