package main

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"wcfs/fusesrv"
)

// accessOptions say which users the FUSE mount serves. Their defaults are those of fusesrv.Private, and with
// --allow-other files that all may read.
type accessOptions struct {
	AllowOther bool   `help:"Let other users use the mount, as far as --mode and --watch-mode let them. By default it serves the server's own user, and root."`
	Owner      string `placeholder:"USER[:GROUP]" help:"Owner of the files in the mount; by default the server's own user and group."`
	Mode       string `placeholder:"OCTAL" help:"Permissions of the files in the mount: 0400, or with --allow-other 0444."`
	WatchGroup string `placeholder:"GROUP" help:"Group that may watch bigfiles, and so make other readers wait."`
	WatchMode  string `placeholder:"OCTAL" help:"Permissions of the watch files: 0600; 0644 with --allow-other; 0664 with --watch-group."`
}

// access makes sense of the options; what is wrong with them is wrong use.
func (o *accessOptions) access(dropIn bool) (fusesrv.Access, error) {
	if dropIn {
		return fusesrv.Public(), nil
	}
	a := fusesrv.Private()
	if !o.AllowOther {
		if o.Mode+o.WatchGroup+o.WatchMode != "" {
			return a, usagef("--mode, --watch-group and --watch-mode are about other users: give --allow-other too")
		}
	} else {
		a.Others, a.Mode, a.WatchMode = fusesrv.OthersRequired, 0o444, 0o644
	}
	var err error
	set := func(name, text string, to *uint32, parse func(string) (uint32, error)) {
		if text == "" || err != nil {
			return
		}
		if *to, err = parse(text); err != nil {
			err = usagef("--%s: %v", name, err)
		}
	}
	owner, group, _ := strings.Cut(o.Owner, ":")
	set("owner", owner, &a.UID, userID)
	set("owner", group, &a.GID, groupID)
	if a.UID != fusesrv.Private().UID {
		a.Others = fusesrv.OthersRequired
	}
	a.WatchGID = a.GID
	if o.WatchGroup != "" {
		a.WatchMode = 0o664
	}
	set("watch-group", o.WatchGroup, &a.WatchGID, groupID)
	set("mode", o.Mode, &a.Mode, fusesrv.ParseMode)
	set("watch-mode", o.WatchMode, &a.WatchMode, fusesrv.ParseMode)
	if err == nil {
		if err = a.Check(); err != nil {
			err = usagef("%v", err)
		}
	}
	return a, err
}

// userID is the number of a user, given by number or name.
func userID(s string) (uint32, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return uint32(n), nil
	}
	u, err := user.Lookup(s)
	if err != nil {
		return 0, fmt.Errorf("there is no user %q", s)
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(n), err
}

// groupID is the number of a group, given by number or name.
func groupID(s string) (uint32, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return uint32(n), nil
	}
	g, err := user.LookupGroup(s)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q", s)
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(n), err
}
