package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"wcfs/fusesrv"
)

// stopCmd is `wcfs stop TARGET`.
type stopCmd struct {
	Mount   string        `arg:"" name:"target" help:"Mount directory, or unix:PATH of a server without a mount."`
	Timeout time.Duration `default:"3s" help:"How long each step may take."`
}

// Run goes from gentle to rough, until neither mount nor server is left.
func (c *stopCmd) Run(p *program) error {
	if sock, ok := strings.CutPrefix(c.Mount, "unix:"); ok {
		return c.stopListener(p, sock)
	}
	if err := mustBe(c.Mount, mountArg+", or unix:PATH", aMount); err != nil {
		return err
	}
	return fusesrv.Stop(p.ctx, c.Mount, fusesrv.StopOptions{Step: c.Timeout, Log: p.log})
}

// stopListener ends the server that listens at a socket: by SIGTERM, as it may serve others elsewhere that it has to let go.
func (c *stopCmd) stopListener(p *program, sock string) error {
	ctx, cancel := context.WithTimeout(p.ctx, c.Timeout)
	defer cancel()
	pid := listenerPid(ctx, sock)
	if pid == 0 {
		return fmt.Errorf("%s: no server listens there", c.Mount)
	}
	if !sameProgram(pid) { // systemd listens for its services itself
		return fmt.Errorf("%s: process %d listens there, which is no wcfs: end the server as it was started", c.Mount, pid)
	}
	proc, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer proc.Release()
	if err := proc.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	ctx, cancel = context.WithTimeout(p.ctx, closeTimeout+c.Timeout)
	defer cancel()
	for tick := time.Tick(10 * time.Millisecond); ; {
		if err := proc.Signal(syscall.Signal(0)); errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) || !sameProgram(pid) {
			return nil
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return fmt.Errorf("process %d was sent SIGTERM and has not ended yet: kill -KILL %d ends it by force", pid, pid)
		}
	}
}

// sameProgram tells whether a process runs a file of the same name as this one.
func sameProgram(pid int) bool {
	own, err := os.Executable()
	if err != nil {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == filepath.Base(own)
}
