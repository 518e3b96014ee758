package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// mountHelper is the name by which mount(8) starts this program for file systems of type wcfs:
//
//	mount.wcfs ZURL DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
const mountHelper = "mount.wcfs"

func isMountHelper(argv0 string) bool { return filepath.Base(argv0) == mountHelper }

// Exit codes of mount(8) and its helpers.
const (
	mountUsage  = 1
	mountFailed = 32
)

// runMountHelper mounts as `wcfs serve --daemon` does, with the options that mount(8) passes.
func runMountHelper(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	serve, fake, err := mountArgs(args)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", mountHelper, err)
		return mountUsage
	}
	if fake {
		return 0
	}
	switch run(ctx, serve, stdout, stderr) {
	case exitOK:
		return 0
	case exitUsage:
		return mountUsage
	}
	return mountFailed
}

// mountArgs turns the arguments of a mount helper into those of wcfs.
func mountArgs(args []string) (serve []string, fake bool, err error) {
	var places, options []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-o" || a == "-t" || a == "-N":
			if i++; i == len(args) {
				return nil, false, fmt.Errorf("%s without a value", a)
			}
			if a == "-o" {
				options = append(options, strings.Split(args[i], ",")...)
			}
		case strings.HasPrefix(a, "-o"):
			options = append(options, strings.Split(a[2:], ",")...)
		case strings.HasPrefix(a, "-") && strings.Trim(a[1:], "sfnvr") == "" && a != "-":
			fake = fake || strings.Contains(a, "f")
		case strings.HasPrefix(a, "-"):
			return nil, false, fmt.Errorf("option %s is not known; give options of `wcfs serve` by -o", a)
		default:
			places = append(places, a)
		}
	}
	if len(places) != 2 {
		return nil, false, fmt.Errorf("expected a database URL and a directory, got %q", places)
	}
	serve = []string{"serve", "--daemon", "--mount=" + places[1]}
	for _, o := range options {
		if !forMount(o) {
			name, value, hasValue := strings.Cut(o, "=")
			o = "--" + strings.ReplaceAll(name, "_", "-")
			if hasValue {
				o += "=" + value
			}
			serve = append(serve, o)
		}
	}
	return append(serve, "--", places[0]), fake, nil
}

// forMount tells options that are for mount(8), systemd or nobody: what they say holds of every mount of wcfs, or
// is done before a helper runs.
func forMount(option string) bool {
	name, _, _ := strings.Cut(option, "=")
	return name == "" || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || slices.Contains([]string{
		"ro", "rw", "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group", "comment",
		"exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "relatime", "norelatime", "strictatime",
		"diratime", "nodiratime", "lazytime", "nolazytime", "async", "sync", "dirsync", "silent", "loud",
	}, name)
}
