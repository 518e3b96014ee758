package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"wcfs/t/guestmount/plan"
)

// block is the process that is killed: a read that nothing answers.
func block(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = syscall.Pread(int(f.Fd()), make([]byte, 4096), 0)
	}
	fmt.Fprintln(os.Stderr, "read ended:", err)
	os.Exit(3)
}

// kill waits until the process is in the read's wait for the server, kills it and takes the time.
func kill(k plan.Kill) error {
	cmd := exec.Command("/proc/self/exe", "block", k.Path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); !waits(cmd.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("it does not block")
		}
		select {
		case err := <-gone:
			return fmt.Errorf("it ended before it was killed: %w", err)
		default:
		}
	}
	began := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	select {
	case <-gone:
	case <-time.After(time.Minute):
		return errors.New("not dead a minute after SIGKILL")
	}
	took := time.Since(began)
	fmt.Printf("killed %s %v\n", k.Step, took)
	if !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		return fmt.Errorf("it ended by itself: %v", cmd.ProcessState)
	}
	if took > time.Duration(k.Within)*time.Millisecond {
		return fmt.Errorf("dead only after %v", took)
	}
	return nil
}

// waits tells whether a thread of a process is in the pread and has gone to sleep in it: then its
// message is on the way, or its turn has not come to matter.
func waits(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	for _, t := range tasks {
		if b, err := os.ReadFile(t); err == nil && strings.Contains(string(b), "p9_client_rpc") {
			call, err := os.ReadFile(filepath.Join(filepath.Dir(t), "syscall"))
			return err == nil && strings.HasPrefix(string(call), fmt.Sprintf("%d ", syscall.SYS_PREAD64))
		}
	}
	return false
}
