package fusesrv

import (
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStatus(t *testing.T) {
	dir := t.TempDir()
	if _, err := Status(t.Context(), dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing mounted: %v", err)
	}
	srv := start(t, "server", dir)
	srv.expect("serving")
	t.Cleanup(func() { detach(dir) })
	rep, err := Status(t.Context(), dir)
	if err != nil || rep.ZURL != newFakeTree().zurl || rep.Head != "0000000000000010" || rep.PinTimeout != "30.0" ||
		rep.Stats["BigFile"] != 2 || rep.Stats["pin"] != 7 || rep.Pid != srv.cmd.Process.Pid || rep.Dir != dir {
		t.Errorf("%+v, %v", rep, err)
	}
	raw, err := json.Marshal(rep)
	var back map[string]any
	if err := errors.Join(err, json.Unmarshal(raw, &back)); err != nil || back["head"] != rep.Head {
		t.Errorf("%s, %v", raw, err)
	}
	srv.signal(syscall.SIGSTOP)
	begin := time.Now()
	if rep, err = Status(t.Context(), dir); !errors.Is(err, ErrHangs) || rep.Pid != srv.cmd.Process.Pid {
		t.Errorf("stopped server: %+v, %v", rep, err)
	}
	if d := time.Since(begin); d > probeTimeout+atOnce {
		t.Errorf("took %v", d)
	}
	srv.signal(syscall.SIGCONT)
	srv.signal(syscall.SIGTERM)
	srv.diesWithin(atOnce)
}

// Stop leaves nothing, however the server is.
func TestStop(t *testing.T) {
	for what, prepare := range map[string]func(t *testing.T, srv *child, dir string){
		"idle": func(*testing.T, *child, string) {},
		"busy": func(t *testing.T, srv *child, dir string) {
			c := start(t, "hold", dir+"/"+fileOne)
			c.expect("open")
		},
		"stopped": func(_ *testing.T, srv *child, _ string) { srv.signal(syscall.SIGSTOP) },
		"stopped, with a client waiting": func(t *testing.T, srv *child, dir string) {
			c := start(t, "hold", dir+"/"+fileOne)
			c.expect("open")
			srv.signal(syscall.SIGSTOP)
		},
		"killed": func(t *testing.T, srv *child, dir string) {
			srv.signal(syscall.SIGKILL)
			srv.diesWithin(atOnce)
			srv.ended <- nil
		},
		"killed, with a client": func(t *testing.T, srv *child, dir string) {
			c := start(t, "hold", dir+"/"+fileOne)
			c.expect("open")
			srv.signal(syscall.SIGKILL)
			srv.diesWithin(atOnce)
			srv.ended <- nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			srv := start(t, "server", dir)
			srv.expect("serving")
			t.Cleanup(func() {
				if _, err := findMount(dir); err == nil {
					detach(dir)
				}
			})
			prepare(t, srv, dir)
			if err := Stop(t.Context(), dir, StopOptions{Step: 500 * time.Millisecond, RemoveDir: true}); err != nil {
				t.Fatal(err)
			}
			srv.diesWithin(atOnce)
			if m, err := findMount(dir); err == nil {
				t.Errorf("mount is left: %+v", m)
			}
			if _, err := os.Lstat(dir); !errors.Is(err, unix.ENOENT) {
				t.Errorf("mount point is left: %v", err)
			}
			if err := Stop(t.Context(), dir, StopOptions{}); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("second stop: %v", err)
			}
		})
	}
}

// The number of a mount that is gone may be another's by now, whose connection is not to be aborted.
func TestStopSparesOthers(t *testing.T) {
	f := mountFake(t, nil)
	m, err := findMount(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &stopping{m: &mountEntry{dir: t.TempDir(), fsType: fsType, minor: m.minor}}
	if err := s.abort(); err == nil {
		t.Error("the connection of another mount was aborted")
	}
	if _, err := os.ReadFile(f.path("head/at")); err != nil {
		t.Error(err)
	}
}
