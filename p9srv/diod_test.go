package p9srv

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"

	"wcfs/t/wait"
)

// TestDiod: the client helper against a server that is not ours. It needs diod (t/setup deb).
func TestDiod(t *testing.T) {
	dir := t.TempDir()
	data := pattern(3<<20 + 17)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub", "file"), data, 0o644)); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command("diod", "-f", "-n", "-N", "-S", "-U", "root", "-c", "/dev/null", "-L", "stderr", "-e", dir, "-l", sock)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("diod is needed, t/setup deb installs it: %v", err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	var c *Client
	var err error
	eventually(t, "diod answers", func() bool {
		c, err = NewClient(t.Context(), "unix:"+sock, dir, DialOptions{Msize: 64 << 10})
		return err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.List("sub")
	if err != nil || len(list) != 1 || list[0].Name != "file" || list[0].Dir {
		t.Errorf("list: %+v, %v", list, err)
	}
	if i, err := c.Stat("sub/file"); err != nil || i.Size != int64(len(data)) || time.Since(i.Mtime) > time.Hour {
		t.Errorf("stat: %+v, %v", i, err)
	}
	f, err := c.Open("sub/file", false)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data)+1)
	if n, err := f.ReadAt(got, 0); err != io.EOF || !bytes.Equal(got[:n], data) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Stat("nope"); !errors.Is(err, linux.ENOENT) {
		t.Errorf("stat of nothing: %v", err)
	}
}

// TestDiodsClients: diod's own programs take our server for one that needs no authentication, list and read.
func TestDiodsClients(t *testing.T) {
	w := serve(t, nil)
	tcp, err := w.srv.Listen(t.Context(), "tcp:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{strings.TrimPrefix(w.addr, "unix:"), strings.TrimPrefix(tcp, "tcp:")} {
		run := func(name string, args ...string) []byte {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, name, append([]string{"-s", server, "-a"}, args...)...).Output()
			if err != nil {
				t.Fatalf("%s %q: %v, %s", name, args, err, stderrOf(err))
			}
			return out
		}
		if names := strings.Fields(string(run("diodls", "/"))); !slices.Contains(names, "head") {
			t.Errorf("diodls / gives %q", names)
		}
		if long := string(run("diodls", "/head", "-l")); !strings.Contains(long, "16 Sep") || !strings.Contains(long, "watch") {
			t.Errorf("diodls -l gives %q", long)
		}
		if at := string(run("diodcat", "/", "head/at")); at != "03e5a3342bc5ab22" {
			t.Errorf("diodcat head/at gives %q", at)
		}
		if data := run("diodcat", "@03e5a3342bc5ab22", "bigfile/0000000000000002"); !bytes.Equal(data, w.tree.at(revPath).data) {
			t.Errorf("diodcat of a bigfile gives %d bytes", len(data))
		}
	}
}

func stderrOf(err error) string {
	var e *exec.ExitError
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return string(e.Stderr)
}
