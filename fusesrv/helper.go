package fusesrv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wcfs/zcore"
)

// helperEnv, in the environment of a helper process, names the mount to look at; empty it asks for what
// know.go needs.
const helperEnv = "WCFS_HELPER"

// probeTimeout is how long a healthy server may take to answer a handful of small reads.
const probeTimeout = 3 * time.Second

// Helper must be called first in main: in a process that this package started as its helper it does what that
// is for and does not return. Calls that may hang on a mount are made there, so that nobody else can hang with
// them.
func Helper() {
	if mount, ok := os.LookupEnv(watchdogEnv); ok {
		if err := watchdog(mount, os.Stdin); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	dir, ok := os.LookupEnv(helperEnv)
	switch {
	case !ok:
		return
	case dir == "":
		if err := identifyAll(os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	json.NewEncoder(os.Stdout).Encode(look(dir))
	os.Exit(0)
}

// helperCommand is this program as a helper process, named name, which is told what to do by env.
func helperCommand(name, env, what string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Args = []string{name}
	cmd.Env = append(os.Environ(), env+"="+what)
	cmd.Dir = "/"
	return cmd, nil
}

// sight is what the helper found, as it goes over its standard output.
type sight struct {
	ZURL       string           `json:"zurl"`
	Head       string           `json:"head"`
	PinTimeout string           `json:"pintimeout"`
	Stats      map[string]int64 `json:"stats"`
	Health     *zcore.Health    `json:"health"` // nil where there is no such file, or it cannot be read

	Failed string        `json:"failed"` // path of what failed, "" if nothing did
	Errno  syscall.Errno `json:"errno"`  // how
}

func look(dir string) (s sight) {
	read := func(name string) string {
		if s.Failed != "" {
			return ""
		}
		path := filepath.Join(dir, name)
		raw, err := os.ReadFile(path)
		if err != nil {
			s.Failed = path
			if !errors.As(err, &s.Errno) {
				s.Errno = syscall.EIO
			}
		}
		return string(raw)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, ".wcfs/health")); err == nil { // in EIO mode it may be all there is
		h := new(zcore.Health)
		if json.Unmarshal(raw, h) == nil && h.State != "" {
			s.Health = h
		}
	}
	s.ZURL = read(".wcfs/zurl")
	s.Head = read("head/at")
	s.PinTimeout = read(".wcfs/pintimeout")
	s.Stats = parseStats(read(".wcfs/stats"))
	return s
}

func parseStats(text string) map[string]int64 {
	stats := make(map[string]int64)
	for line := range strings.Lines(text) {
		name, val, _ := strings.Cut(line, ":")
		if n, err := strconv.ParseInt(strings.TrimSpace(val), 10, 64); err == nil {
			stats[strings.TrimSpace(name)] = n
		}
	}
	return stats
}

// ErrHangs is what a mount that does not answer in time is told by.
var ErrHangs = errors.New("server does not answer")

// probe looks at the mount dir from a child process. The error is what failed there, ErrHangs when
// nothing came in time, or ctx's. A child that even SIGKILL does not free of the mount is left to it.
func probe(ctx context.Context, dir string) (sight, error) {
	var s sight
	if _, nested := os.LookupEnv(helperEnv); nested {
		return s, errors.New("helper process: main does not call fusesrv.Helper")
	}
	cmd, err := helperCommand("wcfs-helper", helperEnv, dir)
	if err != nil {
		return s, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return s, fmt.Errorf("start helper process: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	timeout := time.NewTimer(probeTimeout)
	defer timeout.Stop()
	select {
	case err = <-ended:
	case <-ctx.Done():
		cmd.Process.Kill()
		return s, ctx.Err()
	case <-timeout.C:
		cmd.Process.Kill()
		return s, fmt.Errorf("%s: %w within %v", dir, ErrHangs, probeTimeout)
	}
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &s)
	}
	if err != nil {
		return s, fmt.Errorf("helper process: %w", err)
	}
	if s.Failed != "" {
		return s, fmt.Errorf("%s: %w", s.Failed, s.Errno)
	}
	return s, nil
}

func probeAlive(ctx context.Context, dir string) error {
	_, err := probe(ctx, dir)
	return err
}
