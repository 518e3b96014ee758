package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"wcfs/t/served"
)

// Users of Debian's own list (base-passwd), as real as any.
const (
	uidNobody = 65534
	uidDaemon = 1
	uidBin    = 2
	gidVideo  = 44
	gidUsers  = 100
)

// as has cmd run by a user, with a group of the same number and further ones.
func as(cmd *exec.Cmd, uid uint32, groups ...uint32) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	cmd.Dir = "/"
	return cmd
}

// sh runs a line of shell as a user and tells what it said, and whether it succeeded.
func sh(t *testing.T, line string, uid uint32, groups ...uint32) (string, bool) {
	t.Helper()
	out, err := as(exec.Command("sh", "-c", line), uid, groups...).CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// hall is a directory that every user may enter, gone when the test ends.
func hall(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wcfs-users-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(filepath.Join(dir, "mnt")); err != nil { // never into a mount that is left
			t.Error(err)
			return
		}
		os.RemoveAll(dir)
	})
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "mnt"), 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Three users beside each other on one mount, under every kind of access.
func TestAccess(t *testing.T) {
	const (
		list   = "ls %s/head"
		data   = "cat %s/head/bigfile/"
		status = "cat %s/.wcfs/stats"
		watch  = "echo '1 bye' >%s/head/watch"
		watch9 = "echo '1 bye' >%s/head/watch9"
	)
	type user struct {
		uid    uint32
		groups []uint32
		may    string // initials: list, data, status, watch, W for watch9
	}
	for _, c := range []struct {
		name  string
		args  []string // nil: the drop-in form
		users []user
	}{
		{"default", []string{}, []user{{0, nil, "ldswW"}, {uidNobody, nil, ""}, {uidDaemon, []uint32{0}, ""}}},
		{"drop-in", nil, []user{{0, nil, "ldswW"}, {uidNobody, nil, "ldswW"}, {uidDaemon, nil, "ldswW"}}},
		{"all may read", []string{"--allow-other"}, []user{{0, nil, "ldswW"}, {uidNobody, nil, "lds"}, {uidDaemon, nil, "lds"}}},
		{"an owner", []string{"--owner", "daemon"}, []user{{0, nil, "ldswW"}, {uidNobody, nil, ""}, {uidDaemon, nil, "ldswW"}}},
		{"groups", []string{"--allow-other", "--owner=daemon:users", "--mode=0440", "--watch-group", "video", "--watch-mode", "0660"}, []user{
			{uidDaemon, nil, "ldswW"},
			{uidNobody, nil, ""},
			{uidNobody, []uint32{gidUsers}, "lds"},
			{uidBin, []uint32{gidVideo}, ""}, // cannot get at the watch files
			{uidBin, []uint32{gidUsers, gidVideo}, "ldswW"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := hall(t)
			mnt := filepath.Join(dir, "mnt")
			zurl, db := databaseAt(t, filepath.Join(dir, "Data.fs"))
			if err := os.Chmod(filepath.Join(dir, "Data.fs"), 0o600); err != nil {
				t.Fatal(err)
			}
			oid := db.Files(db.Head())[0].String()
			args := []string{zurl, mnt}
			if c.args != nil {
				args = append([]string{"serve", "--mount", mnt, zurl}, c.args...)
			}
			p := serve(t, mnt, args...)
			want := read(t, filepath.Join(mnt, "head/bigfile", oid)) // the kernel has it in its cache now
			for _, u := range c.users {
				for initial, line := range map[string]string{"l": list, "d": data + oid, "s": status, "w": watch, "W": watch9} {
					out, ok := sh(t, fmt.Sprintf(line, mnt), u.uid, u.groups...)
					if may := strings.Contains(u.may, initial); ok != may {
						t.Errorf("%d %d: %s: success is %v, want %v: %.200s", u.uid, u.groups, line, ok, may, out)
					}
					if initial == "d" && ok && out != want {
						t.Errorf("%d: wrong bytes", u.uid)
					}
				}
			}
			p.End()
		})
	}
}

// What is wrong with the options is wrong use, said before anything is mounted.
func TestAccessOptions(t *testing.T) {
	zurl, _ := database(t)
	mnt := t.TempDir()
	for _, c := range []struct{ args, want string }{
		{"--mode 0444", "--allow-other"},
		{"--watch-group users", "--allow-other"},
		{"--allow-other --mode 0644", "nothing but the watch files"},
		{"--allow-other --mode 0555", "read and write"},
		{"--allow-other --mode 9", "octal"},
		{"--allow-other --watch-mode 01777", "octal"},
		{"--owner nosuchuser", "no user"},
		{"--owner daemon:nosuchgroup", "no group"},
		{"--allow-other --watch-group nosuchgroup", "no group"},
	} {
		_, stderr, code := run(t, append([]string{"serve", "--mount", mnt, zurl}, strings.Fields(c.args)...)...)
		if code != 2 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d, %s", c.args, code, stderr)
		}
	}
}

// openFuse lets all users open /dev/fuse, as udev does; a container may have it for root only. It stays so: other
// tests may be at it.
func openFuse(t *testing.T) {
	t.Helper()
	if err := os.Chmod("/dev/fuse", 0o666); err != nil {
		t.Fatal(err)
	}
}

// userServer is a server that is not root, in a mount namespace of its own where fuse.conf is conf.
func userServer(t *testing.T, conf string, enter []string, args ...string) (p *served.Proc, mnt string) {
	t.Helper()
	openFuse(t)
	dir := hall(t)
	mnt = filepath.Join(dir, "mnt")
	zurl, _ := databaseAt(t, filepath.Join(dir, "Data.fs"))
	exe := filepath.Join(dir, "wcfs")
	raw, err := os.ReadFile(wcfsPath)
	err = errors.Join(err, os.WriteFile(exe, raw, 0o755), os.WriteFile(dir+"/fuse.conf", []byte(conf), 0o644), os.Chmod(dir+"/fuse.conf", 0o644),
		os.Chown(mnt, uidNobody, uidNobody))
	if err != nil {
		t.Fatal(err)
	}
	line := []string{"unshare", "-m", "sh", "-ec", `mount --bind ` + dir + `/fuse.conf /etc/fuse.conf; exec setpriv --reuid nobody --regid nogroup --clear-groups "$@"`, "sh"}
	line = append(append(line, enter...), exe, "serve", "--mount", mnt, zurl)
	line = append(line, args...)
	return served.Start(t, exec.Command(line[0], line[1:]...)), mnt
}

// within runs a line of shell as a user where the server p sees its mount.
func within(p *served.Proc, line string, uid int) (string, error) {
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(p.Cmd.Process.Pid), "-m", "setpriv", "--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(uid),
		"--clear-groups", "sh", "-c", line)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A server that is not root: others, root too, get in where fuse.conf allows it, and it says what to do where not.
func TestAccessOfUserServer(t *testing.T) {
	const allowed = "user_allow_other\n"
	for _, c := range []struct {
		name, conf, args string
		root, daemon     bool
	}{
		{"private, not allowed", "", "", false, false},
		{"private, allowed", allowed, "", true, false},
		{"others, allowed", allowed, "--allow-other", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, mnt := userServer(t, c.conf, nil, strings.Fields(c.args)...)
			p.Until("it serves", func() bool {
				_, err := within(p, "cat "+mnt+"/head/at", uidNobody)
				return err == nil
			})
			for uid, may := range map[int]bool{uidNobody: true, 0: c.root, uidDaemon: c.daemon} {
				if out, err := within(p, "cat "+mnt+"/head/at", uid); (err == nil) != may {
					t.Errorf("user %d: may read %v, want %v: %s", uid, err == nil, may, out)
				}
			}
			if out, err := within(p, "echo '1 bye' >"+mnt+"/head/watch", uidNobody); err != nil {
				t.Errorf("its own user may not watch: %s", out)
			}
			if said := strings.Contains(p.Log.String(), "user_allow_other"); said != (c.conf == "") {
				t.Errorf("speaks of user_allow_other: %v\n%s", said, p.Log)
			}
			p.End()
		})
	}
	t.Run("others, not allowed", func(t *testing.T) {
		p, _ := userServer(t, "", nil, "--allow-other")
		if code := p.Wait(); code != 1 || !strings.Contains(p.Log.String(), "put a line user_allow_other into /etc/fuse.conf") {
			t.Errorf("exit %d: %s", code, p.Log)
		}
	})
	// It could not end their processes if they answered no pin, so they may not watch, whatever the modes say.
	t.Run("watchers it cannot kill", func(t *testing.T) {
		p, mnt := userServer(t, allowed, nil, "--allow-other", "--watch-mode", "0666")
		p.Until("it serves", func() bool {
			_, err := within(p, "cat "+mnt+"/head/at", uidDaemon)
			return err == nil
		})
		if out, err := within(p, "echo '1 bye' >"+mnt+"/head/watch", uidDaemon); err == nil {
			t.Errorf("another user may watch: %s\n%s", out, p.Log)
		}
		p.Until("it says why", func() bool { return strings.Contains(p.Log.String(), "may not end that process") })
		p.End()
	})
	// As root of a user namespace it mounts by itself; users it does not have there are wrong use.
	t.Run("user namespace", func(t *testing.T) {
		p, mnt := userServer(t, "", []string{"unshare", "-rm"})
		p.Until("it serves", func() bool {
			out, err := exec.Command("nsenter", "-t", fmt.Sprint(p.Cmd.Process.Pid), "-U", "-m", "cat", mnt+"/head/at").CombinedOutput()
			return err == nil && len(bytes.TrimSpace(out)) == 16
		})
		if out, err := exec.Command("nsenter", "-t", fmt.Sprint(p.Cmd.Process.Pid), "-m", "setpriv", "--reuid", "daemon", "--clear-groups", "cat", mnt+"/head/at").CombinedOutput(); err == nil {
			t.Errorf("a user outside reads it: %s", out)
		}
		p.End()
		p, _ = userServer(t, "", []string{"unshare", "-rm"}, "--owner", "daemon")
		if code := p.Wait(); code != 2 || !strings.Contains(p.Log.String(), "user namespace") {
			t.Errorf("exit %d: %s", code, p.Log)
		}
	})
}
