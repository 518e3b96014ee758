package guestmount

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"wcfs/qemu"
	"wcfs/qemu/qemutest"
	"wcfs/t/guestmount/plan"
	"wcfs/t/wait"
)

const commits = 50

// Mounts of the guest: of two servers, one of a database that stays and one of a database that gets
// commits, each natively over 9P and through virtfs.
const (
	tcpStay, virtStay = "/tcp-stay", "/virt-stay"
	tcpLive, virtLive = "/tcp-live", "/virt-live"
)

func TestLinux6_1(t *testing.T)  { testGuest(t, "6.1") }
func TestLinux6_12(t *testing.T) { testGuest(t, "6.12") }

func testGuest(t *testing.T, kernel string) {
	qemutest.Turn(t)
	k := qemutest.Kernel(t, kernel)
	man, zurl := database(t)
	stay := serve(t, zurl)
	live := startWriter(t)
	liveServer := serve(t, live.zurl)

	p := plan.Plan{
		Manifest: man,
		Trees: []plan.Tree{
			{Step: "tree-tcp", Dir: tcpStay},
			{Step: "tree-virtfs", Dir: virtStay, NoWatch: true},
		},
		Watches: []plan.Watch{
			{Step: "watch-tcp", Dir: tcpStay, Name: "head/watch"},
			{Step: "watch-virtfs", Dir: virtStay, Name: "head/watch9"},
		},
		Kills: []plan.Kill{{Step: "kill-tcp", Path: tcpStay + "/head/watch", Within: 500}},
		Follows: []plan.Follow{
			{Step: "follow-tcp", Dir: tcpLive, Oid: live.oid, Commits: commits, Size: live.size},
			{Step: "follow-virtfs", Dir: virtLive, Oid: live.oid, Commits: commits, Size: live.size},
		},
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	out, outWriter := io.Pipe()
	results := make(chan map[string]string, 1)
	go func() { results <- watchResults(t, out, live) }()
	res, err := qemu.Run(t.Context(), qemu.Spec{
		Kernel: k, Memory: 512, CPUs: 2, Net: qemu.NetNeeded,
		Program: []string{"/guestbin", "/plan"},
		Files:   []qemu.File{{Path: "/guestbin", Source: guestbin(t), Mode: 0o755}, {Path: "/plan", Data: text, Mode: 0o644}},
		Shares: []qemu.Share{
			{Tag: "stay", Dir: stay.mnt, Mount: virtStay},
			{Tag: "live", Dir: liveServer.mnt, Mount: virtLive},
		},
		Mounts:  []qemu.Mount{tcpMount(stay.addr, tcpStay), tcpMount(liveServer.addr, tcpLive)},
		Stdout:  outWriter,
		Timeout: 3 * wait.Patience, BootTimeout: wait.Patience,
	})
	outWriter.Close()
	got := <-results
	if err != nil || res.Status != 0 {
		t.Errorf("guest: status %d, %v", res.Status, err)
	}
	t.Logf("guest %s: %s, boot %v, run %v", k.Release, res.Accel, res.Boot.Round(time.Millisecond), res.Run.Round(time.Millisecond))
	for _, step := range steps(p) {
		if r, ok := got[step]; r != "ok" {
			t.Errorf("%s: %s (told: %v)", step, r, ok)
		}
	}
}

// tcpMount is how documentation tells guests to mount.
func tcpMount(addr, target string) qemu.Mount {
	_, port, _ := net.SplitHostPort(addr)
	return qemu.Mount{Source: "10.0.2.2", Target: target, Options: fmt.Sprintf(
		"trans=tcp,port=%s,version=9p2000.L,cache=none,access=any,msize=1044504,uname=guest7", port)}
}

func steps(p plan.Plan) []string {
	var list []string
	for _, s := range p.Trees {
		list = append(list, s.Step)
	}
	for _, s := range p.Watches {
		list = append(list, s.Step)
	}
	for _, s := range p.Kills {
		list = append(list, s.Step)
	}
	for _, s := range p.Follows {
		list = append(list, s.Step)
	}
	return list
}

// watchResults reads what the guest tells, and lets the writer commit when all followers have seen the last one.
func watchResults(t *testing.T, r io.Reader, live *writer) map[string]string {
	results := map[string]string{}
	seen := map[int]int{} // commit → followers that saw it
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		line := strings.TrimSpace(scan.Text())
		f := strings.SplitN(line, " ", 4)
		var n int
		switch {
		case f[0] == "saw" && len(f) == 3:
			if _, err := fmt.Sscan(f[2], &n); err != nil {
				t.Errorf("guest said %q", line)
			}
			if seen[n]++; seen[n] == 2 && n < commits {
				live.commit(t, n+1)
			}
		case f[0] == "result" && len(f) >= 3:
			results[f[1]] = strings.Join(f[2:], " ")
		default:
			t.Logf("guest: %s", line)
		}
	}
	return results
}

func TestMain(m *testing.M) { build(m) }
