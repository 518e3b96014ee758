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
	"wcfs/zcore"
)

// statusCmd is `wcfs status TARGET`.
type statusCmd struct {
	Target  string        `arg:"" help:"Mount directory, 9P address (unix:PATH, tcp:HOST:PORT, tls:HOST:PORT) or database URL."`
	JSON    bool          `name:"json" help:"Print JSON."`
	Timeout time.Duration `default:"3s" help:"How long to wait for an answer."`

	Dial p9srv.DialOptions `embed:""`
	storageOptions
}

// status is what is told; scripts may rely on the names.
type status struct {
	Target string `json:"target"`
	State  string `json:"state"`           // "ok", "degraded": not all is served, or not in time; "failed"
	Since  string `json:"since,omitempty"` // since when, as far as that is known
	Why    string `json:"why,omitempty"`   // one sentence
	Error  string `json:"error,omitempty"` // what stood in the way of asking
	fusesrv.Report
}

// Run tells what is known; the exit code is 0 when all is well, 3 when not all is, else 1.
func (c *statusCmd) Run(p *program) error {
	ctx, cancel := context.WithTimeout(p.ctx, c.Timeout)
	defer cancel()
	st := status{Target: c.Target}
	var err error
	st.Report, err = report(ctx, p, c.Target, c.Dial, &c.storageOptions)
	if wrong := new(usageError); errors.As(err, &wrong) {
		return err
	}
	st.judge(ctx, err, c.Timeout)
	if c.JSON {
		err = json.NewEncoder(p.stdout).Encode(st)
	} else {
		err = st.print(p.stdout)
	}
	switch {
	case err != nil || st.State == zcore.HealthOK:
		return err
	case st.State == zcore.HealthDegraded:
		return exitStatus(exitDegraded)
	}
	return exitStatus(exitFailure)
}

// judge says how the server is, by what it said itself or by how it did not answer: err, when ctx had timeout.
func (st *status) judge(ctx context.Context, err error, timeout time.Duration) {
	if err != nil {
		st.Error = err.Error()
	}
	switch h := st.Health; {
	case h != nil && (err == nil || h.State == zcore.HealthFailed):
		st.State, st.Since, st.Why = h.State, h.Since.Format(time.RFC3339), h.Why
	case err == nil: // a server that does not tell more
		st.State = zcore.HealthOK
	case errors.Is(err, fusesrv.ErrHangs), errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		st.State, st.Why = zcore.HealthFailed, fmt.Sprintf("it hangs: no answer within %v; `wcfs stop %s` ends it", timeout, st.Target)
	case errors.Is(err, syscall.ENOTCONN) && st.Pid != 0:
		st.State, st.Why = zcore.HealthFailed, fmt.Sprintf("its server, process %d, is in EIO mode, the log of it says why: start it anew", st.Pid)
	case errors.Is(err, syscall.ENOTCONN):
		st.State, st.Why = zcore.HealthFailed, "it is dead: "+deadMount(st.Target).Error()
	default:
		st.State, st.Why = zcore.HealthFailed, st.Error
	}
}

// report asks whatever serves a target; of a database without a server it tells what one would see.
func report(ctx context.Context, p *program, name string, dial p9srv.DialOptions, storage *storageOptions) (fusesrv.Report, error) {
	switch kindOf(name) {
	case aZURL:
		t, err := openZodbTarget(p.with(ctx), name, "", storage)
		if err != nil {
			return fusesrv.Report{}, err
		}
		defer t.close()
		return readReport(ctx, t)
	case aNine:
		t, err := dialTarget(ctx, name, "", dial)
		if err != nil {
			return fusesrv.Report{}, err
		}
		defer t.close()
		return readReport(ctx, t)
	}
	if kind, err := fusesrv.MountType(name); err != nil || kind != "9p" {
		return fusesrv.Status(ctx, name)
	}
	type answer struct {
		r   fusesrv.Report
		err error
	}
	got := make(chan answer, 1)
	go func() { // which waits for ever where the server hangs, as each access of such a mount does
		r, err := readReport(ctx, dirTarget(name))
		got <- answer{r, err}
	}()
	select {
	case a := <-got:
		a.r.Dir = name
		return a.r, a.err
	case <-ctx.Done():
		return fusesrv.Report{Dir: name}, fusesrv.ErrHangs
	}
}

// readReport reads it from the tree.
func readReport(ctx context.Context, t target) (fusesrv.Report, error) {
	var r fusesrv.Report
	var err error
	if text, err := readSmall(ctx, t, ".wcfs/health"); err == nil { // in EIO mode it may be all there is
		h := new(zcore.Health)
		if json.Unmarshal([]byte(text), h) == nil && h.State != "" {
			r.Health = h
		}
	}
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

// healthRows are the parts of health.
func healthRows(h *zcore.Health) [][2]string {
	if h == nil {
		return nil
	}
	storage := "connected since "
	if !h.Storage.Connected {
		storage = "reconnecting since "
	}
	storage += h.Storage.Since.Format(time.RFC3339)
	return [][2]string{
		{"storage", storage},
		{"head age", time.Duration(h.Head.Age * float64(time.Second)).Round(time.Second).String()},
		{"head lag", fmt.Sprintf("%.1fs, %d commits", h.Head.Lag, h.Head.Behind)},
		{"loads failed", fmt.Sprint(h.Loads.Failed)},
		{"files failed", strings.Join(append([]string{fmt.Sprint(h.Files.Failed)}, h.Files.List...), ", ")},
		{"pins owed", fmt.Sprintf("%d, by %d clients", h.Pins.Owed, h.Pins.Clients)},
		{"no watches", strings.Join(h.Pins.Refused, ", ")},
	}
}

func (st *status) print(w io.Writer) error {
	rows := [][2]string{
		{"target", st.Target}, {"state", st.State}, {"since", st.Since}, {"why", st.Why}, {"database", st.ZURL},
		{"head", st.Head}, {"pintimeout", st.PinTimeout}, {"pid", strconv.Itoa(st.Pid)},
	}
	rows = append(rows, healthRows(st.Health)...)
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
