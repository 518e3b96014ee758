package qemu_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wcfs/qemu"
	"wcfs/qemu/qemutest"
	"wcfs/t/wait"
)

// TestDebuggerAndDisplay: a guest that waits for a debugger before its first instruction, goes on when it is told
// to, and shows on its screen what a program writes there.
func TestDebuggerAndDisplay(t *testing.T) {
	qemutest.Turn(t)
	dir, err := os.MkdirTemp("", "wcfs-vnc-") // short: a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	screen, port := filepath.Join(dir, "s"), fmt.Sprintf("127.0.0.1:%d", wait.Port(t))
	m, err := qemu.Start(t.Context(), qemu.Spec{
		Kernel: qemutest.Kernel(t, "6.12"), GDB: "tcp:" + port, Display: "vnc=unix:" + screen, Timeout: wait.Patience,
		// a screen full of spaces in reverse video
		Program: []string{"/bin/sh", "-c", `printf '\033[?25l\033[7m%2100s' '' >/dev/tty0; echo shown; sleep 1000`}, Env: []string{"PATH=/bin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	go func() { _, _ = m.Wait(t.Context()) }()
	debugger(t, port)
	select {
	case <-m.Running():
	case <-time.After(wait.Patience):
		t.Fatalf("the guest does not go on; console:\n%s", m.Console())
	}
	eventually(t, "the screen stays dark", func() bool {
		lit, err := litShare(screen)
		if err != nil {
			t.Fatal(err)
		}
		return lit > 0.5
	})
}

// debugger connects as gdb does, looks where the guest is, and lets it go (gdb's remote serial protocol).
func debugger(t *testing.T, addr string) {
	t.Helper()
	var c net.Conn
	eventually(t, "nobody listens for the debugger", func() (ok bool) {
		var err error
		c, err = net.Dial("tcp4", addr)
		return err == nil
	})
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait.Patience))
	r := bufio.NewReader(c)
	ask := func(packet string) string {
		sum := byte(0)
		for _, b := range []byte(packet) {
			sum += b
		}
		if _, err := fmt.Fprintf(c, "$%s#%02x", packet, sum); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadString('$'); err != nil { // after the acknowledgement
			t.Fatal(err)
		}
		reply, err := r.ReadString('#')
		if err != nil {
			t.Fatal(err)
		}
		_, _ = r.Discard(2)
		_, _ = io.WriteString(c, "+")
		return strings.TrimSuffix(reply, "#")
	}
	if got := ask("?"); !strings.HasPrefix(got, "T05") && !strings.HasPrefix(got, "S05") {
		t.Errorf("the guest is not stopped: %q", got)
	}
	// rip, after 16 registers of 8 bytes: where a processor starts
	if regs := ask("g"); len(regs) < 272 || regs[256:272] != "f0ff000000000000" {
		t.Errorf("not at the first instruction: %q", regs)
	}
	if got := ask("D"); got != "OK" {
		t.Errorf("detach: %q", got)
	}
}

// litShare is the share of a screen's pixels that are not black (RFB protocol 3.8, RFC 6143).
func litShare(socket string) (float64, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait.Patience))
	r := bufio.NewReader(c)
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, e := io.ReadFull(r, b); e != nil && err == nil {
			err = e
		}
		return b
	}
	read(12) // version
	_, _ = io.WriteString(c, "RFB 003.008\n")
	read(int(read(1)[0]))     // security types
	_, _ = c.Write([]byte{1}) // none
	read(4)                   // result
	_, _ = c.Write([]byte{1}) // shared
	init := read(24)          // width, height, pixel format, length of the name
	w, h := binary.BigEndian.Uint16(init), binary.BigEndian.Uint16(init[2:])
	read(int(binary.BigEndian.Uint32(init[20:])))
	bytes := int(init[4]) / 8 // of a pixel
	if err != nil || bytes != 4 {
		return 0, fmt.Errorf("screen of %d bytes a pixel: %w", bytes, err)
	}
	request := binary.BigEndian.AppendUint16([]byte{3, 0, 0, 0, 0, 0}, w)
	_, _ = c.Write(binary.BigEndian.AppendUint16(request, h))
	lit := 0
	head := read(4) // FramebufferUpdate, number of rectangles
	for range binary.BigEndian.Uint16(head[2:]) {
		rect := read(12)
		n := int(binary.BigEndian.Uint16(rect[4:])) * int(binary.BigEndian.Uint16(rect[6:]))
		if binary.BigEndian.Uint32(rect[8:]) != 0 {
			return 0, errors.New("a rectangle that is not raw")
		}
		pixels := read(n * bytes)
		for i := range n {
			if p := pixels[i*bytes:]; p[0]|p[1]|p[2]|p[3] != 0 {
				lit++
			}
		}
	}
	return float64(lit) / float64(int(w)*int(h)), err
}

// TestNoDisplay: a window where there is no desktop, or QEMU has none, is one clear error.
func TestNoDisplay(t *testing.T) {
	t.Setenv("DISPLAY", "")
	t.Setenv("WAYLAND_DISPLAY", "")
	spec := qemu.Spec{Kernel: qemu.Kernel{Image: "/x"}, Program: []string{"x"}, Display: qemu.Window}
	if _, err := qemu.Run(t.Context(), spec); !errors.Is(err, qemu.ErrDisplay) || !strings.Contains(err.Error(), "DISPLAY") {
		t.Errorf("%v", err)
	}
	t.Setenv("DISPLAY", ":0")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "qemu-system-x86_64"), "#!/bin/sh\necho Available display backend types:\necho none\necho curses\n")
	t.Setenv("PATH", dir)
	if _, err := qemu.Run(t.Context(), spec); !errors.Is(err, qemu.ErrMissing) || !strings.Contains(err.Error(), "qemu-system-gui") {
		t.Errorf("%v", err)
	}
}
