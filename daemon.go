package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// daemonize starts this program anew with the same arguments but --daemon, in a session of its own, and returns when
// that server serves. What it logs until then comes here; later to --log-file, or nowhere.
func (c *serveCmd) daemonize(p *program) error {
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@wcfs-ready-" + rand.Text(), Net: "unixgram"})
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command("/proc/self/exe", withoutDaemon(p.args)...)
	cmd.Args[0] = "wcfs"
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.LocalAddr().String(), envName("daemon")+"=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var early bytes.Buffer
	if c.LogFile == "" {
		cmd.Stderr = &early
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	serving := make(chan struct{})
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ready.Read(buf)
			if err != nil {
				return
			}
			if slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
				close(serving)
				return
			}
		}
	}()
	select {
	case <-serving:
		return nil
	case err := <-ended:
		return daemonFailed(err, early.String(), c.LogFile)
	case <-p.ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(closeTimeout):
			_ = cmd.Process.Kill()
		}
		return errors.New("interrupted by a signal while starting; nothing is left")
	}
}

// daemonFailed is the error of a server that ended before it served: what it said last.
func daemonFailed(err error, said, logFile string) error {
	if err == nil {
		err = errors.New("the server ended before it served anything")
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return errors.New(strings.TrimPrefix(last, "wcfs: "))
	}
	if logFile != "" {
		return fmt.Errorf("the server did not start (%w); see %s", err, logFile)
	}
	return err
}

// withoutDaemon leaves --daemon out of the arguments of `wcfs serve`.
func withoutDaemon(args []string) []string {
	end := len(args)
	if i := slices.Index(args, "--"); i >= 0 {
		end = i
	}
	options := slices.DeleteFunc(slices.Clone(args[:end]), func(a string) bool { return a == "--daemon" || a == "--daemon=true" })
	return append(options, args[end:]...)
}

// openLog makes the file that --log-file names the stderr of this process.
func (c *serveCmd) openLog() error {
	f, err := os.OpenFile(c.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("--log-file: %w", err)
	}
	defer f.Close()
	return syscall.Dup3(int(f.Fd()), 2, 0)
}
