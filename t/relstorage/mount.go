package relstorage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Mount is a running wcfs that serves a database at Dir, for benchmarks; tests use wcfs/t/served.
type Mount struct {
	Dir string
	Cmd *exec.Cmd
	log bytes.Buffer
}

// NewMount runs cmd, which serves at dir in the foreground, and waits until it is ready.
func NewMount(ctx context.Context, cmd *exec.Cmd, dir string) (*Mount, error) {
	m := &Mount{Dir: dir, Cmd: cmd}
	cmd.Stdout, cmd.Stderr = &m.log, &m.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.ReadFile(filepath.Join(dir, ".wcfs/zurl")); err == nil {
			return m, nil
		}
		if time.Now().After(end) || ctx.Err() != nil || !running(cmd.Process.Pid) {
			return nil, errors.Join(errors.New("wcfs is not ready"), m.Close())
		}
	}
}

// running tells of a child that was not waited for yet.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := bytes.LastIndexByte(b, ')')
	return err == nil && i+2 < len(b) && b[i+2] != 'Z'
}

// RSS returns the server's resident memory in KiB.
func (m *Mount) RSS() (kb int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(b, []byte("VmRSS:"))
	_, err = fmt.Sscan(string(after), &kb)
	return kb, err
}

// Close ends the server, which unmounts. An error has the end of what the server said.
func (m *Mount) Close() error {
	m.Cmd.Process.Signal(syscall.SIGTERM)
	err := m.Cmd.Wait()
	if err != nil {
		said := m.log.Bytes()
		err = fmt.Errorf("wcfs: %w; it said:\n%s", err, said[max(0, len(said)-2000):])
	}
	return err
}
