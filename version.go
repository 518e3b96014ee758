package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCmd is `wcfs version`.
type versionCmd struct{}

// Run prints the line that .wcfs/version of a server of this build has.
func (c *versionCmd) Run(p *program) error {
	_, err := fmt.Fprintln(p.stdout, "wcfs "+version())
	return err
}

// version tells which build this is: the module's version, the commit it was built from, and the Go release.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown " + runtime.Version()
	}
	module, commit, dirty := info.Main.Version, "", ""
	if module == "" {
		module = "(devel)"
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = " commit " + s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " modified"
		}
	}
	return fmt.Sprintf("%s%s%s %s %s/%s", module, commit, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
