package fusesrv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"wcfs/zcore/tree"
)

// Access says which users a mount serves. The kernel enforces it by the modes that stat shows
// (default_permissions), for pages in its cache too.
type Access struct {
	Others Others

	UID, GID uint32 // owner of everything in the mount
	Mode     uint32 // permission bits of files; a directory may be searched by those who may read

	// Only those who may write the watch files can make others wait. A user who may only read one sees an
	// empty file.
	WatchGID  uint32
	WatchMode uint32
}

// Others says whether the kernel lets users in besides the one who mounts.
type Others int

// Values of Others. A server that is root always lets others in as far as the modes go.
const (
	OthersIfAllowed Others = iota // as far as the modes go, where fuse.conf allows it
	OthersRequired                // the same; not to be allowed is an error
	OthersNever                   // not even root, unless the server is root
)

// ErrOthers is the error of a mount that fuse.conf does not allow to let others in.
var ErrOthers = errors.New("fuse.conf does not let ordinary users give others access to a mount")

// Private is access for the server's own user, and root.
func Private() Access {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	return Access{UID: uid, GID: gid, Mode: 0o400, WatchGID: gid, WatchMode: 0o600}
}

// Public is access for all users, who may watch too: what existing clients count on when the server is root. Else
// it is the server's own user alone, whatever the modes say.
func Public() Access {
	a := Private()
	a.Others, a.Mode, a.WatchMode = OthersNever, 0o444, 0o666
	return a
}

func (a Access) isZero() bool { return a == Access{} }

// Check finds owners that the kernel could not show in this user namespace, and modes with other bits.
func (a Access) Check() error {
	for _, m := range []uint32{a.Mode, a.WatchMode} {
		if m&^0o777 != 0 || m&0o111 != 0 {
			return fmt.Errorf("mode %04o of files: only read and write permissions are meant", m)
		}
	}
	if a.Mode&0o222 != 0 {
		return fmt.Errorf("mode %04o of files: nothing but the watch files can be written", a.Mode)
	}
	for _, id := range []struct {
		what, table string
		id          uint32
	}{{"user", "/proc/self/uid_map", a.UID}, {"group", "/proc/self/gid_map", a.GID}, {"group", "/proc/self/gid_map", a.WatchGID}} {
		if ok, err := mapped(id.table, id.id); err == nil && !ok {
			return fmt.Errorf("%s %d does not exist in this user namespace (%s)", id.what, id.id, id.table)
		}
	}
	return nil
}

// mapped tells whether a user namespace knows an id (user_namespaces(7)).
func mapped(table string, id uint32) (bool, error) {
	raw, err := os.ReadFile(table)
	if err != nil {
		return false, err
	}
	for line := range bytes.Lines(raw) {
		var first, outside, n uint64
		if _, err := fmt.Sscan(string(line), &first, &outside, &n); err != nil {
			return false, err
		}
		if uint64(id) >= first && uint64(id) < first+n {
			return true, nil
		}
	}
	return false, nil
}

// bits are the permission bits to show of a node.
func (a Access) bits(kind tree.Kind, perm uint32) (mode, gid uint32) {
	switch {
	case kind == tree.Link:
		return 0o777, a.GID
	case kind == tree.Dir:
		return a.Mode | a.Mode>>2, a.GID
	case perm&0o222 != 0:
		return a.WatchMode, a.WatchGID
	}
	return a.Mode, a.GID
}

// mountData are the options that both ways of mounting have in common. With default_permissions the kernel goes by
// the modes that stat shows, and an open(2) looks at attributes, so that it sees a file that has grown.
func mountData(others bool) []string {
	opts := []string{"default_permissions"}
	if others {
		opts = append(opts, "allow_other")
	}
	return opts
}

// mountHow is how one mount is made.
type mountHow struct {
	dir, source string
	access      Access
}

// lettingOthers tries with others let in, where they may be, and else without.
func (h mountHow) lettingOthers(try func(others bool) (int, error)) (fd int, others bool, err error) {
	if h.access.Others == OthersNever {
		fd, err = try(false)
		return fd, false, err
	}
	if fd, err = try(true); err == nil || !errors.Is(err, ErrOthers) {
		return fd, true, err
	}
	if h.access.Others == OthersRequired {
		return -1, false, fmt.Errorf("mount %s: %w: put a line user_allow_other into /etc/fuse.conf, or run the server as root", h.dir, ErrOthers)
	}
	fd, err = try(false)
	return fd, false, err
}

// ParseMode reads octal permission bits, like 0440.
func ParseMode(s string) (uint32, error) {
	m, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || m > 0o777 {
		return 0, fmt.Errorf("%q is no mode in octal digits, like 0440", s)
	}
	return uint32(m), nil
}
