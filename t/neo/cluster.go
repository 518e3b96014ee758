// Package neo runs real NEO clusters, and a writer to them, for tests and benchmarks.
//
// The servers are those of neoppod 1.12.0 from PyPI as t/setup makes them: for Python 3, speaking
// protocol 6 (struct) or 5 (msgpack), and unmodified where the machine has a Python 2.7. The writer is
// a client of our own in Python (pyneo), which shares nothing with the Go driver.
//
// It owns the processes that it starts, ends them when the test does, and writes only below a folder of
// its own. It does not own the driver under test, nor what is right: callers keep what they wrote.
package neo

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wcfs/t/zeo"
)

// TB is what of testing.TB is used here.
type TB = zeo.TB

// Config says how a cluster is to be. What is 0 is 1, but for replicas.
type Config struct {
	Protocol   int // 6 or 5; 6 if 0
	Masters    int
	Storages   int
	Partitions int
	Replicas   int        // copies of each partition beside the first
	Certs      *zeo.Certs // TLS
	Python2    bool       // the unmodified 1.12.0; Has2 tells whether it is there
	Upstream   *Cluster   // the cluster that this one is to be a backup of
}

func (c Config) String() string {
	s := fmt.Sprintf("protocol%d-%dM-%dS-%dP-%dR", c.Protocol, max(1, c.Masters), max(1, c.Storages), max(1, c.Partitions), c.Replicas)
	if c.Certs != nil {
		s += "-TLS"
	}
	if c.Python2 {
		s += "-python2"
	}
	return s
}

// Cluster is a running NEO cluster.
type Cluster struct {
	t        TB
	cfg      Config
	dir      string
	Name     string
	Masters  []*Node
	Storages []*Node
	Admin    *Node
	hand     *Writer // the cluster's own, which waits and asks
}

// Has2 tells whether the machine has the unmodified 1.12.0.
func Has2(t TB) bool {
	_, err := os.Stat(filepath.Join(zeo.Root(t), ".deps/neo27/installed.txt"))
	return err == nil
}

// Start runs a cluster and waits until it is operational.
func Start(t TB, cfg Config) *Cluster {
	t.Helper()
	for _, n := range []*int{&cfg.Masters, &cfg.Storages, &cfg.Partitions} {
		*n = max(1, *n)
	}
	if cfg.Protocol == 0 {
		cfg.Protocol = 6
	}
	dir, err := os.MkdirTemp("", "neo")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, cfg: cfg, dir: dir, Name: "test-" + filepath.Base(dir)}
	t.Cleanup(c.end)
	for i := range cfg.Masters {
		c.Masters = append(c.Masters, c.node("neomaster", fmt.Sprintf("M%d", i+1)))
	}
	for _, m := range c.Masters {
		m.args = append(m.args, "-A", fmt.Sprint(cfg.Storages),
			"-p", fmt.Sprint(cfg.Partitions), "-r", fmt.Sprint(cfg.Replicas))
		if up := cfg.Upstream; up != nil {
			m.args = append(m.args, "-C", up.Name, "-M", up.masters(" "))
		}
		m.Start()
	}
	for range cfg.Storages {
		c.AddStorage()
	}
	c.Admin = c.node("neoadmin", "A")
	c.Admin.Start()
	c.hand = c.Writer()
	c.Wait()
	return c
}

// end stops what runs, and shows the logs if the test failed.
func (c *Cluster) end() {
	nodes := c.nodes()
	for _, n := range nodes {
		n.Kill()
		n.log.Close()
		if c.t.Failed() {
			if b, err := os.ReadFile(n.log.Name()); err == nil {
				c.t.Logf("end of the log of %s:\n%s", n.Name, b[max(0, len(b)-3000):])
			}
		}
	}
	os.RemoveAll(c.dir)
}

func (c *Cluster) nodes() []*Node {
	nodes := append(append([]*Node{}, c.Masters...), c.Storages...)
	if c.Admin != nil {
		nodes = append(nodes, c.Admin)
	}
	return nodes
}

// AddStorage starts a further storage. In a running cluster it is pending until "add" and "tweak".
func (c *Cluster) AddStorage() *Node {
	c.t.Helper()
	n := c.node("neostorage", fmt.Sprintf("S%d", len(c.Storages)+1))
	// Else the first to come is S1.
	n.args = append(n.args, "-i", fmt.Sprint(len(c.Storages)+1), "-a", "SQLite", "-d", filepath.Join(c.dir, n.Name+".sqlite"))
	c.Storages = append(c.Storages, n)
	n.Start()
	return n
}

func (c *Cluster) masters(sep string) string {
	var list []string
	for _, m := range c.Masters {
		list = append(list, m.Addr)
	}
	return strings.Join(list, sep)
}

// URL returns the database URL; more are further parameters.
func (c *Cluster) URL(more ...string) string {
	scheme := "neo"
	if crt := c.cfg.Certs; crt != nil {
		scheme = "neos"
		more = append([]string{"ca=" + url.QueryEscape(crt.CA), "cert=" + url.QueryEscape(crt.ClientCert),
			"key=" + url.QueryEscape(crt.ClientKey)}, more...)
	}
	s := fmt.Sprintf("%s://%s@%s", scheme, url.PathEscape(c.Name), c.masters(","))
	if len(more) > 0 {
		s += "?" + strings.Join(more, "&")
	}
	return s
}

// Normal returns the URL as wcfs shows it: masters in order, and nothing that says how to get there.
func (c *Cluster) Normal() string {
	masters := strings.Split(c.masters(","), ",")
	slices.Sort(masters)
	scheme := "neo"
	if c.cfg.Certs != nil {
		scheme = "neos"
	}
	return fmt.Sprintf("%s://%s@%s", scheme, url.PathEscape(c.Name), strings.Join(masters, ","))
}

// Bigfile names the cluster as t/relstorage's bigfile.py has it.
func (c *Cluster) Bigfile() string {
	s := fmt.Sprintf("neo:%d:%s:%s", c.cfg.Protocol, c.Name, c.masters(","))
	if crt := c.cfg.Certs; crt != nil {
		s += ":" + crt.CA + ":" + crt.ClientCert + ":" + crt.ClientKey
	}
	return s
}

// Wait waits until the cluster is operational.
func (c *Cluster) Wait() {
	c.t.Helper()
	synced := make(chan error, 1)
	go func() { synced <- c.hand.call("sync", nil, nil) }()
	for {
		select {
		case err := <-synced:
			if err != nil {
				c.t.Fatalf("%s does not become operational: %v", c.cfg, err)
			}
			return
		case <-time.After(100 * time.Millisecond):
			for _, n := range c.nodes() {
				if n.Ended() {
					c.t.Fatalf("%s: %s has ended by itself", c.cfg, n.Name)
				}
			}
		}
	}
}

// Cells is the partition table, once operational: for each partition the state of each node that has it.
func (c *Cluster) Cells() []map[int]int {
	c.t.Helper()
	var rows [][][2]int
	if err := c.hand.call("cells", nil, &rows); err != nil {
		c.t.Fatal(err)
	}
	table := make([]map[int]int, len(rows))
	for i, row := range rows {
		table[i] = map[int]int{}
		for _, cell := range row {
			table[i][cell[0]] = cell[1]
		}
	}
	return table
}

// UpToDate is the state of a cell that has everything.
const UpToDate = 1

// Replicated tells whether each partition has all its copies up to date, and no others.
func (c *Cluster) Replicated() bool {
	c.t.Helper()
	for _, row := range c.Cells() {
		for _, state := range row {
			if state != UpToDate {
				return false
			}
		}
		if len(row) != c.cfg.Replicas+1 {
			return false
		}
	}
	return true
}

// WaitReplicated waits until Replicated.
func (c *Cluster) WaitReplicated() {
	c.t.Helper()
	zeo.Eventually(c.t, "all copies are up to date", c.Replicated)
}

// WaitPending waits until the master knows a storage that is not part of the cluster yet.
func (c *Cluster) WaitPending() {
	c.t.Helper()
	zeo.Eventually(c.t, "a storage is pending", func() bool {
		return strings.Contains(c.Ctl("print", "node"), "PENDING")
	})
}

// Tweak spreads the partitions over all storages anew, leaving those named out. neoctl of 1.12.0 fails if none
// is named, so that is a node that has no partitions.
func (c *Cluster) Tweak(nodes ...*Node) string {
	c.t.Helper()
	args := []string{"tweak"}
	for _, n := range nodes {
		args = append(args, n.Name)
	}
	if len(nodes) == 0 {
		args = append(args, "M1")
	}
	return c.Ctl(args...)
}

// Backup has the cluster begin to back up its upstream. It must not have clients then, and takes no writer afterwards.
func (c *Cluster) Backup() {
	c.t.Helper()
	c.hand.Close()
	c.Ctl("set", "cluster", "STARTING_BACKUP")
	zeo.Eventually(c.t, "the cluster backs up", func() bool { return strings.Contains(c.Ctl("print", "cluster"), "BACKINGUP") })
}

// TryCtl runs neoctl.
func (c *Cluster) TryCtl(ctx context.Context, args ...string) (string, error) {
	cmd := c.command(ctx, "neoctl", append(c.tls(false), append([]string{"-a", c.Admin.Addr}, args...)...)...)
	out, err := cmd.CombinedOutput()
	s := strings.TrimSpace(string(out))
	if err == nil && strings.HasPrefix(s, "ERROR") {
		err = fmt.Errorf("neoctl %s: %s", strings.Join(args, " "), s)
	}
	return s, err
}

// Ctl runs neoctl until it succeeds: an admin that has just lost its master refuses.
func (c *Cluster) Ctl(args ...string) string {
	c.t.Helper()
	var out string
	var err error
	zeo.Eventually(c.t, "neoctl "+strings.Join(args, " "), func() bool {
		out, err = c.TryCtl(context.Background(), args...)
		return err == nil
	})
	return out
}

// Primary is the master that leads.
func (c *Cluster) Primary() *Node {
	c.t.Helper()
	var addr [2]any
	if err := c.hand.call("primary", nil, &addr); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.Masters {
		if m.Addr == net.JoinHostPort(fmt.Sprint(addr[0]), fmt.Sprint(addr[1])) {
			return m
		}
	}
	c.t.Fatalf("no master of the cluster is at %v", addr)
	return nil
}

func (c *Cluster) tls(server bool) []string {
	crt := c.cfg.Certs
	switch {
	case crt == nil:
		return nil
	case server:
		return []string{"--ca", crt.CA, "--cert", crt.Cert, "--key", crt.Key}
	}
	return []string{"--ca", crt.CA, "--cert", crt.ClientCert, "--key", crt.ClientKey}
}

// command is a command of neoppod.
func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	deps := filepath.Join(zeo.Root(c.t), ".deps")
	if c.cfg.Python2 {
		py, err := os.ReadFile(filepath.Join(deps, "neo27/python"))
		if err != nil {
			c.t.Fatalf("%v: there is no Python 2.7, or t/setup was not run", err)
		}
		cmd := exec.CommandContext(ctx, strings.TrimSpace(string(py)),
			append([]string{"-c", "from neo.scripts." + name + " import main; main()"}, args...)...)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(deps, "neo27"))
		return cmd
	}
	cmd := exec.CommandContext(ctx, filepath.Join(deps, "neo/bin/python"),
		append([]string{"-Wignore", filepath.Join(deps, "neo/servers/bin", name)}, args...)...)
	if _, err := os.Stat(cmd.Args[2]); err != nil {
		c.t.Fatalf("%v: run t/setup first", err)
	}
	cmd.Env = os.Environ()
	if c.cfg.Protocol == 5 {
		cmd.Env = append(cmd.Env, "NEO_WIRE=5")
	}
	return cmd
}
