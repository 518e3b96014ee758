package p9

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"wcfs/qemu"
	"wcfs/t/bench/kit"
	"wcfs/t/wait"
)

const (
	guestKernel = "6.1"
	guestSize   = 128 << 20 // of the file
	tcpSize     = 16 << 20  // of which so much is read over TCP, which QEMU's user mode network makes slow
	mostGuests  = 4
)

// Guests measures in guests without KVM, so that what is compared is the same everywhere.
func Guests(ctx context.Context, b *kit.Bench) (rows []kit.Row, err error) {
	if err := kit.Need("qemu-system-x86_64", "deb"); err != nil {
		return nil, err
	}
	kernel, err := qemu.FindKernel(ctx, guestKernel, qemu.DefaultCache(), nil)
	if err != nil {
		return nil, err
	}
	var ports [2]string
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	mnt, err := os.MkdirTemp(b.Dir, "mnt")
	if err != nil {
		return nil, err
	}
	addr := func(kind, port string) func(string) string {
		return func(string) string { return kind + "127.0.0.1:" + port }
	}
	s, err := newSet(ctx, b, guestSize, addr("tcp:", ports[0]), addr("tcp:", ports[1]), "--mount", mnt)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var guests []*guest
	defer func() {
		for _, g := range guests {
			g.close()
		}
	}()
	for len(guests) < mostGuests {
		g, err := s.boot(ctx, kernel, fmt.Sprintf("guest%d", len(guests)), mnt, ports)
		if err != nil {
			return nil, err
		}
		guests = append(guests, g)
		if err := g.do(ctx, "true"); err != nil { // it runs
			return nil, err
		}
	}
	rows, err = s.guestPairs(ctx, b, guests[0], kernel.Release)
	if err != nil {
		return rows, err
	}
	var points []kit.Point
	for _, n := range []int{1, 2, mostGuests} {
		points = append(points, kit.Point{Name: fmt.Sprintf("guests at once: %d", n), Run: s.together(ctx, guests[:n])})
	}
	more, err := b.Curve(ctx, fmt.Sprintf("%d MiB over TCP in each guest", tcpSize/2>>20), points...)
	return append(rows, more...), err
}

// guestPairs compares in one guest.
func (s *set) guestPairs(ctx context.Context, b *kit.Bench, g *guest, release string) (rows []kit.Row, err error) {
	for _, c := range []struct {
		what, ours, other, note string
		size                    int64
		target                  float64
	}{
		{"9P in a guest, trans=tcp, msize 65536", "/ours/" + s.path, "/diod/file", "other: diod in the same guest", tcpSize, 1},
		{"guest through QEMU's virtfs on the mount", "/vours/" + s.path, "/vtmpfs/file", "other: virtfs on a tmpfs", guestSize, 0.8},
	} {
		run := func(path string) kit.Run {
			return func() (time.Duration, error) { return kit.Timed(func() error { return g.read(ctx, path, c.size) }) }
		}
		p, err := b.Pair(ctx, run(c.ours), run(c.other))
		if err != nil {
			return rows, err
		}
		rows = append(rows, p.Speed(c.what, c.size, c.target, fmt.Sprintf("%s; Linux %s, QEMU without KVM", c.note, release)))
	}
	return rows, nil
}

// together has all guests read at once, and takes the time of the last.
func (s *set) together(ctx context.Context, guests []*guest) kit.Run {
	return func() (time.Duration, error) {
		return kit.Timed(func() error {
			errs := make([]error, len(guests))
			var wg sync.WaitGroup
			for i, g := range guests {
				wg.Go(func() { errs[i] = g.read(ctx, "/ours/"+s.path, tcpSize/2) })
			}
			wg.Wait()
			return errors.Join(errs...)
		})
	}
}

func freePort() (string, error) {
	port, err := wait.FindPort()
	return strconv.Itoa(port), err
}

// guest is a small guest whose program is a shell that takes commands from here.
type guest struct {
	m    *qemu.Machine
	in   *io.PipeWriter
	said chan string // lines that it printed; closed at its end
	n    int         // commands
}

// boot starts a guest that has ours and diod by TCP, and the mount and the tmpfs by virtfs.
func (s *set) boot(ctx context.Context, kernel qemu.Kernel, name, mnt string, ports [2]string) (*guest, error) {
	in, inWriter := io.Pipe()
	out, outWriter := io.Pipe()
	options := "trans=tcp,version=9p2000.L,cache=none,access=any,msize=65536,port="
	m, err := qemu.Start(ctx, qemu.Spec{
		Kernel: kernel, Memory: 128, Net: qemu.NetNeeded, Accel: qemu.TCG, Program: []string{"/bin/sh"}, Env: []string{"PATH=/bin"},
		Mounts: []qemu.Mount{
			{Source: "10.0.2.2", Target: "/ours", Options: options + ports[0] + ",uname=" + name},
			{Source: "10.0.2.2", Target: "/diod", Options: options + ports[1] + ",uname=root,aname=" + s.export},
		},
		Shares: []qemu.Share{
			{Tag: "ours", Dir: mnt, Mount: "/vours", ReadOnly: true},
			{Tag: "tmpfs", Dir: s.export, Mount: "/vtmpfs", ReadOnly: true},
		},
		Stdin: in, Stdout: outWriter, Timeout: 10 * time.Minute, BootTimeout: 2 * time.Minute,
	})
	if err != nil {
		return nil, err
	}
	g := &guest{m: m, in: inWriter, said: make(chan string, 100)}
	go func() { // it follows the guest, to tell when it runs
		_, err := m.Wait(ctx)
		outWriter.CloseWithError(err)
	}()
	go func() {
		defer close(g.said)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			g.said <- strings.TrimSpace(scan.Text())
		}
	}()
	return g, nil
}

// read reads the beginning of a file.
func (g *guest) read(ctx context.Context, path string, n int64) error {
	return g.do(ctx, fmt.Sprintf("dd if=%s of=/dev/null bs=1M count=%d 2>/tmp/said || cat /tmp/said", filepath.Clean(path), n>>20))
}

// do has the shell do something that prints nothing.
func (g *guest) do(ctx context.Context, command string) error {
	g.n++
	go fmt.Fprintf(g.in, "%s\necho \"= %d\"\n", command, g.n) // its end is seen below; the pipe is closed by close
	var unexpected []string
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case line, ok := <-g.said:
			switch {
			case !ok:
				return fmt.Errorf("guest ended: %s: %s", strings.Join(unexpected, "; "), g.m.Console())
			case line == fmt.Sprintf("= %d", g.n):
				if len(unexpected) > 0 {
					return fmt.Errorf("guest: %s: %s", command, strings.Join(unexpected, "; "))
				}
				return nil
			case line != "":
				unexpected = append(unexpected, line)
			}
		}
	}
}

// close ends the guest as a power failure does.
func (g *guest) close() {
	g.m.Close()
	g.in.Close()
}
