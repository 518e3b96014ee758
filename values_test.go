package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// parse reads a command line.
func parse(t *testing.T, args ...string) (*cli, error) {
	t.Helper()
	c := new(cli)
	k, err := newParser(c, new(bytes.Buffer), new(bytes.Buffer), new(settings))
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Parse(args)
	return c, err
}

// fs/01: what is no UTF-8 reaches its place byte for byte, as an argument of a program and everywhere else.
func TestArgumentsByteForByte(t *testing.T) {
	odd := "\xff\xe9 \xc3\xa9 \u2028 <&> \\ \ufffd \U0010ffff \xed\xa0\x80"
	c, err := parse(t, "run", "--append", odd, "--env=A="+odd, "-o"+odd, "--rw", odd, "--", "printf", odd, "-x"+odd, "--y="+odd)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"printf", odd, "-x" + odd, "--y=" + odd}; !slices.Equal(slices.DeleteFunc(c.Run.Program, func(s string) bool { return s == "--" }), want) {
		t.Errorf("program: %q, want %q", c.Run.Program, want)
	}
	for _, got := range []string{c.Run.Append, strings.TrimPrefix(c.Run.Env[0], "A="), c.Run.QEMUOpts[0], c.Run.RW[0]} {
		if got != odd {
			t.Errorf("an option: %q, want %q", got, odd)
		}
	}
	if c, err = parse(t, "cat", "--tls-ca="+odd, "file://"+odd, odd); err != nil {
		t.Fatal(err)
	}
	if c.Cat.Target != "file://"+odd || c.Cat.Path != odd || c.Cat.Dial.TLSCA != odd {
		t.Errorf("cat: %q %q %q", c.Cat.Target, c.Cat.Path, c.Cat.Dial.TLSCA)
	}
	t.Setenv("WCFS_MOUNT", "/\xff\xe9")
	if c, err = parse(t, "serve", "--9p", "unix:"+odd, "file:///x"); err != nil {
		t.Fatal(err)
	}
	if c.Serve.Mount != "/\xff\xe9" || !slices.Equal(c.Serve.P9.Addr, []string{"unix:" + odd}) {
		t.Errorf("serve: %q %q", c.Serve.Mount, c.Serve.P9.Addr)
	}
}

// Numbers without a unit are seconds or MiB; 0 is refused, whatever it would mean.
func TestNumbers(t *testing.T) {
	c, err := parse(t, "run", "--timeout", "5", "--mem", "512M", "true")
	if err != nil || c.Run.Timeout != 5*time.Second || c.Run.Mem != 512 {
		t.Errorf("run: %v, %v, %v", err, c.Run.Timeout, c.Run.Mem)
	}
	for text, want := range map[string]int{"1024": 1024, "2G": 2048, "2GiB": 2048, "1.5g": 1536, "2048K": 2, "3mb": 3, "1T": 1 << 20} {
		if c, err = parse(t, "run", "--mem", text, "true"); err != nil || c.Run.Mem != want {
			t.Errorf("--mem %s: %d, %v; want %d", text, c.Run.Mem, err, want)
		}
	}
	for text, want := range map[string]time.Duration{"5": 5 * time.Second, "0.25": time.Second / 4, "1m30s": 90 * time.Second, "1e-12": 1} {
		if c, err = parse(t, "serve", "--pintimeout", text, "file:///x"); err != nil || c.Serve.PinTimeout != want {
			t.Errorf("--pintimeout %s: %v, %v; want %v", text, c.Serve.PinTimeout, err, want)
		}
	}
	c, err = parse(t, "serve", "--9p-max-bytes", "64M", "--9p-max-msize=65536", "--max-history-mb=1G", "--read-ahead-kb", "1M", "file:///x")
	if s := c.Serve; err != nil || s.P9.MaxBytes != 64<<20 || s.P9.MaxMsize != 65536 || s.HistoryMB != 1024 || s.ReadAhead != 1024 {
		t.Errorf("serve: %v, %d, %d, %d, %d", err, s.P9.MaxBytes, s.P9.MaxMsize, s.HistoryMB, s.ReadAhead)
	}
	for _, option := range []string{"--pintimeout", "--retention", "--storage-timeout", "--storage-poll", "--9p-stall-timeout", "--9p-max-conns",
		"--9p-max-bytes", "--9p-max-msize", "--max-bases", "--pin-window", "--max-history-mb", "--read-ahead-kb"} {
		for _, value := range []string{"0", "-1", "", "x", "nan", "1e300", "99999999999999999999", "M", "1.23456789M1"} {
			if _, err := parse(t, "serve", option+"="+value, "file:///x"); err == nil || !strings.HasPrefix(err.Error(), option) {
				t.Errorf("%s=%s: %v", option, value, err)
			}
		}
	}
	for _, args := range []string{"run --timeout 0 true", "run --mem 0 true", "run --smp 0 true", "status --timeout 0 /x", "wait --timeout=0 /x", "bench --size 0 /x y"} {
		if _, err := parse(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), "more than 0") {
			t.Errorf("%s: %v", args, err)
		}
	}
	for _, args := range []string{"wait /x", "run true", "serve file:///x", "ls /x", "status /x", "bench /x y", "demo", "dial tls:x:1 --listen unix:/x"} {
		if _, err := parse(t, strings.Fields(args)...); err != nil {
			t.Errorf("%s, with the defaults: %v", args, err)
		}
	}
}
