package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// statusCmd is `wcfs status MNT|ADDR`.
type statusCmd struct {
	Target  string        `arg:"" help:"Mount directory or 9P address."`
	JSON    bool          `name:"json" help:"Print JSON."`
	Timeout time.Duration `default:"5s" help:"How long to wait for an answer."`
}

// status is what is told; JSON names are for scripts to rely on.
type status struct {
	Target     string           `json:"target"`
	State      string           `json:"state"` // "ok", "hangs", "dead": it does not answer, "failed": any other error
	Error      string           `json:"error,omitempty"`
	URL        string           `json:"zurl,omitempty"`
	Head       string           `json:"head,omitempty"`
	PinTimeout string           `json:"pintimeout,omitempty"`
	Pid        int              `json:"pid,omitempty"`
	Stats      map[string]int64 `json:"stats,omitempty"`
}

// Run probes in a child: a mount whose server is stopped would block this process for ever.
func (c *statusCmd) Run(p *program) error {
	st := status{Target: c.Target, State: "failed"}
	var m *mountEntry
	if scheme, _, ok := strings.Cut(c.Target, ":"); !ok || !isNineScheme(scheme) {
		var err error
		if m, err = findMount(c.Target); err != nil {
			st.Error = err.Error()
			return c.show(p, st)
		}
		st.URL = m.Source
	}
	out, err := probe(p.ctx, c.Target, c.Timeout)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		st.State, st.Error = "hangs", fmt.Sprintf("no answer within %v; `wcfs stop %s` ends it", c.Timeout, c.Target)
	case err != nil:
		st.Error = err.Error()
		if strings.Contains(st.Error, "not connected") {
			st.State, st.Error = "dead", fmt.Sprintf("the server is gone or in EIO mode; `wcfs stop %s` unmounts", c.Target)
		}
	default:
		if err := json.Unmarshal(out, &st); err != nil {
			return err
		}
		st.State = "ok"
	}
	if m != nil {
		st.Pid = serverPid(m)
	}
	return c.show(p, st)
}

func (c *statusCmd) show(p *program, st status) error {
	if c.JSON {
		if err := json.NewEncoder(p.stdout).Encode(st); err != nil {
			return err
		}
	} else {
		st.print(p.stdout)
	}
	if st.State != "ok" {
		return exitStatus(exitFailure)
	}
	return nil
}

func (st *status) print(w io.Writer) {
	line := func(name, value string) {
		if value != "" && value != "0" {
			fmt.Fprintf(w, "%-10s  %s\n", name, value)
		}
	}
	line("target", st.Target)
	line("state", st.State)
	line("error", st.Error)
	line("database", st.URL)
	line("head", st.Head)
	line("pintimeout", st.PinTimeout)
	line("pid", strconv.Itoa(st.Pid))
	names := make([]string, 0, len(st.Stats))
	for name := range st.Stats {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "%-10s  %d\n", name, st.Stats[name])
	}
}

// probe runs `wcfs probe`; a child that cannot even be killed is left behind.
func probe(ctx context.Context, target string, timeout time.Duration) ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	done := make(chan error, 1)
	cmd := exec.CommandContext(ctx, self, "probe", target)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	go func() { done <- cmd.Run() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case <-done: // killed
		case <-time.After(time.Second):
		}
		return nil, ctx.Err()
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errors.New(strings.TrimPrefix(strings.TrimSpace(stderr.String()), "wcfs: "))
	}
	return stdout.Bytes(), nil
}

// probeCmd is the child of `wcfs status`.
type probeCmd struct {
	Target string `arg:""`
}

// Run reads the small files of a tree and prints them as JSON.
func (c *probeCmd) Run(p *program) error {
	args := targetArgs{Target: c.Target}
	t, err := args.openTarget(p)
	if err != nil {
		return err
	}
	defer t.close()
	var text [4]string
	for i, name := range []string{".wcfs/zurl", "head/at", ".wcfs/pintimeout", ".wcfs/stats"} {
		f, err := t.open(p.ctx, name)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		f.Close()
		if err != nil {
			return fmt.Errorf("read %s: %w", filepath.Join(c.Target, name), err)
		}
		text[i] = string(b)
	}
	st := status{Target: c.Target, URL: text[0], Head: text[1], PinTimeout: text[2], Stats: map[string]int64{}}
	for line := range strings.Lines(text[3]) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "\t: ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			st.Stats[name] = n
		}
	}
	return json.NewEncoder(p.stdout).Encode(st)
}
