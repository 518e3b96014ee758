package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// shares adds the writable folders, and every mounted wcfs: through the root, which is mounted with a
// cache, its changes would not be seen.
func (o *RunOptions) shares(s *Spec, say Progress) error {
	for _, arg := range o.Share {
		tag, dir, ok := strings.Cut(arg, "=")
		if !ok || dir == "" {
			return fmt.Errorf("--share %s: want TAG=DIR", arg)
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return fmt.Errorf("--share %s: %w", arg, err)
		}
		s.Shares = append(s.Shares, Share{Tag: tag, Dir: abs, Mount: abs})
	}
	for i, dir := range o.RW {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return fmt.Errorf("--rw %s: %w", dir, err)
		}
		s.Shares = append(s.Shares, Share{Tag: fmt.Sprintf("rw%d", i), Dir: abs, Mount: abs})
	}
	for i, dir := range wcfsMounts() {
		if len(s.Shares) == maxShares {
			say("more than %d mounts of wcfs on this host: the guest sees not all of them", i)
			break
		}
		s.Shares = append(s.Shares, Share{Tag: fmt.Sprintf("%s%d", wcfsMountTag, i), Dir: dir, Mount: dir})
	}
	return nil
}

// server adds the two mounts of a wcfs that serves 9P, and returns what to call in the end.
func (o *RunOptions) server(ctx context.Context, s *Spec) (func(), error) {
	if o.NineP == "" {
		return func() {}, nil
	}
	if err := o.checkServer(ctx); err != nil {
		return nil, fmt.Errorf("--9p %s: %w", o.NineP, err)
	}
	port, stop, err := o.port()
	if err != nil {
		return nil, fmt.Errorf("--9p %s: %w", o.NineP, err)
	}
	for target, cache := range map[string]string{"/wcfs": "none", "/wcfs-snap": "loose"} {
		// msize: what the kernel takes at most, of the form k·4096+24 so that a page-aligned read is one message
		s.Mounts = append(s.Mounts, Mount{Source: hostAddr, Target: target, Options: fmt.Sprintf(
			"trans=tcp,port=%d,version=9p2000.L,cache=%s,access=any,msize=1044504,uname=run%d", port, cache, os.Getpid())})
	}
	return stop, nil
}

// checkServer finds out before the guest boots whether a 9P server answers there.
func (o *RunOptions) checkServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	kind, addr, _ := strings.Cut(o.NineP, ":")
	if kind != "unix" && kind != "tcp" {
		return errors.New("want unix:PATH or tcp:127.0.0.1:PORT")
	}
	c, err := new(net.Dialer).DialContext(ctx, kind, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	const version = "9P2000.L" // Tversion: size[4] type[1] tag[2] msize[4] version[s]
	ask := append([]byte{21, 0, 0, 0, 100, 0xff, 0xff, 0, 0x20, 0, 0, byte(len(version)), 0}, version...)
	if _, err := c.Write(ask); err != nil {
		return err
	}
	head := make([]byte, 7)
	if _, err := io.ReadFull(c, head); err != nil || head[4] != 101 {
		return errors.New("no 9P server answers there")
	}
	return nil
}

// hostAddr is the host's loopback, seen from a guest.
const hostAddr = "10.0.2.2"

// port is the loopback port where the server of --9p is, or a relay to it.
func (o *RunOptions) port() (int, func(), error) {
	kind, addr, _ := strings.Cut(o.NineP, ":")
	switch kind {
	case "unix":
		c, err := net.Dial("unix", addr)
		if err != nil {
			return 0, nil, err
		}
		c.Close()
		r, err := startRelay(addr)
		if err != nil {
			return 0, nil, err
		}
		return r.Port(), r.Close, nil
	case "tcp":
		host, p, err := net.SplitHostPort(addr)
		if err != nil {
			return 0, nil, err
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return 0, nil, errors.New("want a loopback address of this host")
		}
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return 0, nil, fmt.Errorf("%q is no port", p)
		}
		return int(n), func() {}, nil
	}
	return 0, nil, errors.New("want unix:PATH or tcp:127.0.0.1:PORT")
}

const wcfsMountTag = "wcfs.mount"

func isWcfsMount(s Share) bool { return strings.HasPrefix(s.Tag, wcfsMountTag) }

// wcfsMounts lists where FUSE file systems of wcfs are mounted and answer.
func wcfsMounts() []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []string
	for _, dir := range parseMounts(string(b), "fuse.wcfs") {
		alive := make(chan bool, 1)
		go func() { alive <- isDir(dir) }()
		select {
		case ok := <-alive:
			if ok {
				out = append(out, dir)
			}
		case <-time.After(time.Second): // its server is stuck; QEMU would be, too
		}
	}
	return out
}

// parseMounts lists mount points of a type, from the text of /proc/self/mountinfo (proc(5)).
func parseMounts(info, fstype string) []string {
	var out []string
	for _, l := range strings.Split(info, "\n") {
		front, back, ok := strings.Cut(l, " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 5 || len(b) < 1 || b[0] != fstype {
			continue
		}
		dir := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4])
		out = append(out, dir)
	}
	return out
}
