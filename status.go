package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wcfs/fusesrv"
	"wcfs/p9srv"
)

// statusCmd is `wcfs status MNT|ADDR`.
type statusCmd struct {
	Target  string        `arg:"" help:"Mount directory or 9P address (unix:PATH, tcp:HOST:PORT, tls:HOST:PORT)."`
	JSON    bool          `name:"json" help:"Print JSON."`
	Timeout time.Duration `default:"3s" help:"How long to wait for an answer."`

	Dial p9srv.DialOptions `embed:""`
}

// status is what is told; scripts may rely on the names.
type status struct {
	Target string `json:"target"`
	State  string `json:"state"` // "ok", "hangs", "dead": its server is gone or in EIO mode, "failed": any other error
	Error  string `json:"error,omitempty"`
	fusesrv.Report
}

// Run tells what is known; the exit code is 0 when the server answers.
func (c *statusCmd) Run(p *program) error {
	if err := mustBe(c.Target, "a mount directory or a 9P address", aMount, aNine); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, c.Timeout)
	defer cancel()
	st := status{Target: c.Target, State: "ok"}
	var err error
	if kindOf(c.Target) == aNine {
		st.Report, err = c.overNine(ctx)
	} else {
		st.Report, err = fusesrv.Status(ctx, c.Target)
	}
	switch {
	case err == nil:
	case errors.Is(err, fusesrv.ErrHangs), errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		st.State, st.Error = "hangs", fmt.Sprintf("no answer within %v; `wcfs stop %s` ends it", c.Timeout, c.Target)
	case errors.Is(err, syscall.ENOTCONN):
		st.State, st.Error = "dead", deadMount(c.Target).Error()
	default:
		st.State, st.Error = "failed", err.Error()
	}
	if c.JSON {
		err = json.NewEncoder(p.stdout).Encode(st)
	} else {
		err = st.print(p.stdout)
	}
	if err == nil && st.State != "ok" {
		err = exitStatus(exitFailure)
	}
	return err
}

// overNine asks a 9P server; when ctx ends the connection does.
func (c *statusCmd) overNine(ctx context.Context) (fusesrv.Report, error) {
	var r fusesrv.Report
	t, err := dialTarget(ctx, c.Target, "", c.Dial)
	if err != nil {
		return r, err
	}
	defer t.close()
	var stats string
	for _, f := range []struct {
		name string
		text *string
	}{{".wcfs/zurl", &r.ZURL}, {"head/at", &r.Head}, {".wcfs/pintimeout", &r.PinTimeout}, {".wcfs/stats", &stats}} {
		if *f.text, err = readSmall(ctx, t, f.name); err != nil {
			return r, err
		}
	}
	r.Stats = make(map[string]int64)
	for line := range strings.Lines(stats) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "\t: ")
		if r.Stats[name], err = strconv.ParseInt(value, 10, 64); err != nil {
			return r, fmt.Errorf(".wcfs/stats: %w", err)
		}
	}
	return r, nil
}

func readSmall(ctx context.Context, t target, name string) (string, error) {
	f, err := t.open(ctx, name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	return string(text), err
}

func (st *status) print(w io.Writer) error {
	rows := [][2]string{
		{"target", st.Target}, {"state", st.State}, {"error", st.Error}, {"database", st.ZURL},
		{"head", st.Head}, {"pintimeout", st.PinTimeout}, {"pid", strconv.Itoa(st.Pid)},
	}
	names := make([]string, 0, len(st.Stats))
	for name := range st.Stats {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		rows = append(rows, [2]string{name, fmt.Sprint(st.Stats[name])})
	}
	for _, row := range rows {
		if row[1] == "" || row[0] == "pid" && st.Pid == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-13s  %s\n", row[0], row[1]); err != nil {
			return err
		}
	}
	return nil
}
